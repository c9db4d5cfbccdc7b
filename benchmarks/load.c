/*
 * A WebSocket load generator for Linux: one thread, epoll, nothing but the C library.
 *
 * It speaks RFC 6455 itself.  The messages it sends are made and masked before the first
 * window, each with a random key of its own, so a message costs it little more than a
 * system call.  What comes back is compared byte for byte as it arrives; a compressed echo
 * is checked for its framing only.  A JSON line is written for each window.  The CPU time
 * of the server is read at the window's two ends, as the kernel keeps it for a process:
 * the run time of all of its threads, those that have ended too, in nanoseconds.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: load --port PORT [options]\n"
    "\n"
    "  --mode closed      each connection keeps --depth messages under way (default)\n"
    "         open        messages at --rate a second over all connections; the latency is\n"
    "                     counted from the moment a message was due, not from its sending\n"
    "         handshake   connect, upgrade, Close, end of stream, and again\n"
    "         idle        send --depth messages a connection, say so, answer pings until\n"
    "                     standard input ends or has a line\n"
    "  --port PORT        of the server, on 127.0.0.1\n"
    "  --connections N    (default 100; of handshakes no more than 64 at a time)\n"
    "  --depth D          (default 1)\n"
    "  --rate R           messages a second, for open (default 10000)\n"
    "  --size BYTES       of the payload (default 20)\n"
    "  --payload KIND     ascii (default), unicode or binary\n"
    "  --compressed FILE  offer permessage-deflate, and send the messages in FILE, which are\n"
    "                     deflated: each a length in four bytes, big-endian, and the payload\n"
    "  --deflate          offer permessage-deflate, and send messages that are not deflated\n"
    "  --warmup S         before the first window (default 0.5)\n"
    "  --seconds S        how long a window is (default 1)\n"
    "  --windows K        (default 1)\n"
    "  --pid PID          a process of the server, whose CPU time is read; repeatable\n";

enum { CLOSED, OPEN, HANDSHAKE, IDLE };
static const char *const MODES[] = {"closed", "open", "handshake", "idle", NULL};

static struct {
    int mode, port, connections, depth, windows, deflate;
    size_t size;
    double rate, warmup, seconds;
    const char *payload, *compressed;
    pid_t pids[64];
    int pid_count;
} want = {.connections = 100, .depth = 1, .windows = 1, .size = 20, .rate = 10000,
          .warmup = 0.5, .seconds = 1, .payload = "ascii"};

/* The messages, which every connection sends in turn. */
typedef struct {
    uint8_t *frame, *payload;
    size_t frame_length, length;
} Message;

static Message *messages;
static unsigned message_count;
static int opcode = 1;

enum { CONNECTING, UPGRADING, UPGRADED, ENDING };
enum { CONTROL_SPACE = 1024, RESPONSE_SPACE = 1024, VECTOR = 16, SOURCES = 16, AT_ONCE = 64 };

typedef struct {
    int fd, state;
    /* to send: first the control frames, then `owed` messages, the first from `offset` on */
    unsigned sent, received, owed;
    size_t offset;
    uint8_t *control;
    size_t control_length;
    int writable;
    /* when each message under way was due: a ring, from `received` on */
    int64_t *due;
    unsigned due_space;
    /* being received: the opening handshake's response, then a frame at a time */
    char response[RESPONSE_SPACE];
    size_t response_length;
    uint8_t head[10], body[125];
    size_t head_length, position;
    uint64_t left, frame_size;
    int in_frame, in_message;
    int64_t began;
} Connection;

static Connection *connections;
static int opened, alive, connecting, ready, finishing, poller;
static int64_t now;

/* Latencies: buckets of a 128th of a power of two each. */
enum { FINE = 7, BUCKETS = (64 - FINE + 1) << FINE };
static uint64_t histogram[BUCKETS], counted, bytes_received;
static int64_t longest;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *need(void *memory) {
    if (!memory) die("no memory");
    return memory;
}

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    if (clock_gettime(id, &t)) return 0;
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t server_cpu(void) {
    int64_t sum = 0;
    for (int i = 0; i < want.pid_count; i++) {
        clockid_t id;
        if (clock_getcpuclockid(want.pids[i], &id)) die("process %d is gone", want.pids[i]);
        sum += clock_ns(id);
    }
    return sum;
}

/* ---- latencies ---- */

static void count(int64_t latency) {
    uint64_t v = latency > 0 ? latency : 0;
    unsigned index = v;
    if (v >> FINE) {
        unsigned exponent = 63 - __builtin_clzll(v);
        index = ((exponent - FINE + 1) << FINE) + ((v >> (exponent - FINE)) & ((1 << FINE) - 1));
    }
    histogram[index]++;
    counted++;
    if (latency > longest) longest = latency;
}

static double percentile(double share) {
    uint64_t rank = share * counted, seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) > rank) {
            if (i < 1 << FINE) return i / 1e3;
            unsigned exponent = (i >> FINE) + FINE - 1;
            double low = (double)((uint64_t)((i & ((1 << FINE) - 1)) | 1 << FINE) << (exponent - FINE));
            return (low + (1ULL << (exponent - FINE)) / 2.0) / 1e3;
        }
    return longest / 1e3;
}

/* ---- messages ---- */

static void draw(void *to, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t r = getrandom((char *)to + done, n - done, 0);
        if (r < 0) die("getrandom: %s", strerror(errno));
        done += r;
    }
}

static void make_payload(Message *m) {
    static const char *const WORDS[] = {"é", "Grüße", "Привет", "世界", "日本語", "🌍", "ok", " "};
    m->payload = need(malloc(m->length + 1));
    draw(m->payload, m->length);
    if (!strcmp(want.payload, "ascii"))
        for (size_t i = 0; i < m->length; i++) m->payload[i] = 32 + m->payload[i] % 95;
    else if (!strcmp(want.payload, "unicode")) {
        uint8_t choices[64];
        draw(choices, sizeof choices);
        for (size_t i = 0, k = 0; i < m->length; k++) {
            const char *word = WORDS[choices[k % 64] % 8];
            size_t n = strlen(word);
            if (i + n > m->length) word = "x", n = 1;
            memcpy(m->payload + i, word, n);
            i += n;
        }
    }
}

static size_t put_head(uint8_t *to, int first, size_t length) {
    to[0] = first;
    if (length < 126) return to[1] = 128 | length, 2;
    int wide = length > 65535, width = wide ? 8 : 2;
    to[1] = 128 | (wide ? 127 : 126);
    for (int i = 0; i < width; i++) to[1 + width - i] = (uint64_t)length >> 8 * i;
    return 2 + width;
}

/* Put a frame with a random key at `to`, and return its length. */
static size_t put_frame(uint8_t *to, int first, const uint8_t *payload, size_t length) {
    size_t head = put_head(to, first, length);
    uint8_t *key = to + head, *body = key + 4;
    draw(key, 4);
    for (size_t i = 0; i < length; i++) body[i] = payload[i] ^ key[i & 3];
    return head + 4 + length;
}

static void read_messages(void) {
    FILE *file = fopen(want.compressed, "rb");
    uint8_t length[4];
    if (!file) die("%s: %s", want.compressed, strerror(errno));
    while (fread(length, 4, 1, file) == 1) {
        messages = need(realloc(messages, (message_count + 1) * sizeof *messages));
        Message *m = &messages[message_count++];
        m->length = (size_t)length[0] << 24 | length[1] << 16 | length[2] << 8 | length[3];
        m->payload = need(malloc(m->length + 1));
        if (m->length && fread(m->payload, m->length, 1, file) != 1)
            die("%s is cut off", want.compressed);
    }
    fclose(file);
    if (!message_count) die("%s has no message", want.compressed);
}

static void make_messages(void) {
    opcode = strcmp(want.payload, "binary") ? 1 : 2;
    if (want.compressed)
        read_messages();
    else {
        message_count = want.size < 1 << 18 ? 16 : 4;
        messages = need(calloc(message_count, sizeof *messages));
        for (unsigned i = 0; i < message_count; i++) {
            messages[i].length = want.size;
            make_payload(&messages[i]);
        }
    }
    for (unsigned i = 0; i < message_count; i++) {
        Message *m = &messages[i];
        m->frame = need(malloc(m->length + 14));
        m->frame_length = put_frame(
            m->frame, 128 | (want.compressed ? 64 : 0) | opcode, m->payload, m->length);
    }
}

/* ---- sending ---- */

static void send_control(Connection *c, int kind, const uint8_t *payload, size_t length) {
    if (!c->control) c->control = need(malloc(CONTROL_SPACE));
    if (c->control_length + length + 14 > CONTROL_SPACE) die("too many pings");
    c->control_length += put_frame(c->control + c->control_length, 128 | kind, payload, length);
}

static void owe(Connection *c, int64_t due) {
    unsigned under_way = c->sent + c->owed - c->received;
    if (under_way == c->due_space) {
        unsigned space = under_way ? 2 * under_way : 4;
        int64_t *ring = need(malloc(space * sizeof *ring));
        for (unsigned i = 0; i < under_way; i++)
            ring[(c->received + i) & (space - 1)] = c->due[(c->received + i) & (c->due_space - 1)];
        free(c->due);
        c->due = ring;
        c->due_space = space;
    }
    c->due[(c->sent + c->owed++) & (c->due_space - 1)] = due;
}

static void broken(int error) {
    if (!finishing) die("a connection broke: %s", error ? strerror(error) : "end of stream");
}

/* The bytes that are to be sent next, but for those that have to wait for their end. */
static int gather(Connection *c, struct iovec *vector) {
    if (c->control_length && !c->offset) {
        vector[0] = (struct iovec){c->control, c->control_length};
        return 1;
    }
    int n = 0, most = c->control_length ? 1 : VECTOR;
    for (; n < most && (unsigned)n < c->owed; n++) {
        Message *m = &messages[(c->sent + n) % message_count];
        size_t from = n ? 0 : c->offset;
        vector[n] = (struct iovec){m->frame + from, m->frame_length - from};
    }
    return n;
}

static void flush(Connection *c) {
    struct iovec vector[VECTOR];
    while (c->writable && (c->control_length || c->owed)) {
        int control = c->control_length && !c->offset;
        int n = gather(c, vector);
        ssize_t r = writev(c->fd, vector, n);
        if (r < 0 && errno != EAGAIN) {
            c->control_length = c->owed = 0;
            return broken(errno);
        }
        if (r < 0) {
            c->writable = 0;
            return;
        }
        if (control) {
            c->control_length -= r;
            memmove(c->control, c->control + r, c->control_length);
            continue;
        }
        while (r > 0) {
            size_t rest = messages[c->sent % message_count].frame_length - c->offset;
            if ((size_t)r < rest) {
                c->offset += r;
                break;
            }
            r -= rest;
            c->offset = 0;
            c->sent++;
            c->owed--;
        }
    }
}

/* ---- connections ---- */

static void start(Connection *c) {
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    static unsigned turn;
    int one = 1;
    to.sin_port = htons(want.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* several addresses of ours, for one has no more than 28,000 ports */
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + turn++ % SOURCES);
    free(c->due);
    free(c->control);
    *c = (Connection){.began = now, .state = CONNECTING};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) die("bind: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    event.data.ptr = c;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    alive++;
    connecting++;
}

static void fill(void) {
    while (opened < want.connections && connecting < AT_ONCE) start(&connections[opened++]);
}

static void send_upgrade(Connection *c) {
    char request[512];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) die("connect: %s", strerror(error));
    int n = snprintf(
        request, sizeof request,
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
        want.port,
        want.compressed || want.deflate
            ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            : "");
    if (write(c->fd, request, n) != n) die("the request was not sent");
    c->state = UPGRADING;
}

static void end_politely(Connection *c) {
    static const uint8_t NORMAL[] = {1000 >> 8, 1000 & 255};
    c->state = ENDING;
    c->owed = c->offset ? 1 : 0;
    send_control(c, 8, NORMAL, sizeof NORMAL);
    flush(c);
}

static void upgraded(Connection *c) {
    c->state = UPGRADED;
    c->writable = 1;
    connecting--;
    ready += want.mode != IDLE || !want.depth;
    if (finishing || want.mode == HANDSHAKE) end_politely(c);
    if (want.mode == IDLE) {
        for (int i = 0; i < want.depth; i++) owe(c, now);
        flush(c);
    }
    if (want.mode != HANDSHAKE) fill();
}

static void ended(Connection *c) {
    if (c->state != ENDING) broken(0);
    close(c->fd);
    c->fd = -1;
    alive--;
    if (want.mode == HANDSHAKE) {
        count(now - c->began);
        if (!finishing) start(c);
    }
}

/* ---- receiving ---- */

static size_t receive_response(Connection *c, const uint8_t *data, size_t n) {
    size_t before = c->response_length, take = RESPONSE_SPACE - 1 - before;
    if (take > n) take = n;
    memcpy(c->response + before, data, take);
    c->response_length += take;
    c->response[c->response_length] = 0;
    char *end = strstr(c->response, "\r\n\r\n");
    if (!end) {
        if (c->response_length == RESPONSE_SPACE - 1) die("the response has no end");
        return take;
    }
    end[2] = 0;
    if (strncmp(c->response, "HTTP/1.1 101", 12)) die("not upgraded: %s", c->response);
    if (!strstr(c->response, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) die("wrong accept: %s", c->response);
    if (want.compressed && !strstr(c->response, "permessage-deflate"))
        die("permessage-deflate was not accepted");
    size_t used = (size_t)(end - c->response) + 4 - before;
    upgraded(c);
    return used;
}

static void echoed(Connection *c) {
    count(now - c->due[c->received++ & (c->due_space - 1)]);
    if (c->state != UPGRADED) return;
    if (want.mode == CLOSED && !finishing) owe(c, now);
    if (want.mode == IDLE && c->received == (unsigned)want.depth) ready++;
}

static void begin_frame(Connection *c) {
    int kind = c->head[0] & 15;
    if (kind >= 8) {
        if (c->frame_size > 125) die("a control frame of %lu bytes", (unsigned long)c->frame_size);
        return;
    }
    if (c->in_message ? kind != 0 : kind != opcode) die("an echo of opcode %d", kind);
    if (c->head[0] & (want.compressed || want.deflate ? 0x30 : 0x70)) die("a reserved bit is set");
    if (c->received == c->sent + (c->offset > 0)) die("an echo of nothing");
    if (!c->in_message) c->position = 0;
    c->in_message = 1;
}

static void end_frame(Connection *c) {
    int kind = c->head[0] & 15;
    c->in_frame = 0;
    c->head_length = 0;
    if (kind == 9) send_control(c, 10, c->body, c->frame_size);
    if (kind == 8 && c->state != ENDING) {
        if (!finishing) die("a Close with code %d", c->body[0] << 8 | c->body[1]);
        c->state = ENDING;
    }
    if (kind >= 8 || !(c->head[0] & 128)) return;
    if (!want.compressed && !want.deflate &&
        c->position != messages[c->received % message_count].length)
        die("an echo of %zu bytes", c->position);
    c->in_message = 0;
    echoed(c);
}

static void receive_payload(Connection *c, const uint8_t *data, size_t n) {
    if (c->head[0] & 8)
        memcpy(c->body + (c->frame_size - c->left), data, n);
    else {
        Message *m = &messages[c->received % message_count];
        if (!want.compressed && !want.deflate &&
            (c->position + n > m->length || memcmp(data, m->payload + c->position, n)))
            die("an echo is not what was sent");
        c->position += n;
    }
    c->left -= n;
}

static void receive(Connection *c, const uint8_t *data, size_t n) {
    while (n) {
        size_t used = 1;
        if (c->state == UPGRADING)
            used = receive_response(c, data, n);
        else if (c->in_frame) {
            used = n < c->left ? n : c->left;
            receive_payload(c, data, used);
            if (!c->left) end_frame(c);
        } else {
            c->head[c->head_length++] = *data;
            int code = c->head[1], wide = code == 127 ? 8 : code == 126 ? 2 : 0;
            if (c->head_length == 2 && code > 127) die("a masked frame");
            if (c->head_length >= 2 && c->head_length == (size_t)(2 + wide)) {
                c->frame_size = wide ? 0 : code;
                for (int i = 0; i < wide; i++) c->frame_size = c->frame_size << 8 | c->head[2 + i];
                c->left = c->frame_size;
                c->in_frame = 1;
                begin_frame(c);
                if (!c->left) end_frame(c);
            }
        }
        data += used;
        n -= used;
    }
}

static void handle(Connection *c, unsigned events) {
    static uint8_t buffer[1 << 18];
    if (c->fd < 0) return;
    if (c->state == CONNECTING) send_upgrade(c);
    if (events & EPOLLOUT && c->state >= UPGRADED) c->writable = 1;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        for (;;) {
            ssize_t n = read(c->fd, buffer, sizeof buffer);
            if (n < 0 && errno == EAGAIN) break;
            if (n < 0) broken(errno), c->state = ENDING;
            if (n <= 0) return ended(c);
            bytes_received += n;
            now = clock_ns(CLOCK_MONOTONIC);
            receive(c, buffer, n);
            if ((size_t)n < sizeof buffer && !(events & (EPOLLRDHUP | EPOLLHUP))) break;
        }
    flush(c);
}

static void poll_once(int wait) {
    struct epoll_event events[256];
    int n = epoll_wait(poller, events, 256, wait);
    if (n < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
    now = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < n; i++)
        if (events[i].data.ptr)
            handle(events[i].data.ptr, events[i].events);
        else
            finishing = 1;
}

/* ---- the runs ---- */

static void report(double seconds, int64_t cpu, int64_t own) {
    printf("{\"seconds\": %.6f, \"count\": %lu, \"bytes\": %lu, "
           "\"server_cpu_ns\": %ld, \"load_cpu_ns\": %ld, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"p999_us\": %.2f, \"max_us\": %.2f}\n",
           seconds, (unsigned long)counted, (unsigned long)bytes_received,
           (long)cpu, (long)own, percentile(.5), percentile(.99), percentile(.999), longest / 1e3);
    fflush(stdout);
}

static void clear(void) {
    memset(histogram, 0, sizeof histogram);
    counted = bytes_received = longest = 0;
}

static void run_windows(void) {
    int64_t began = clock_ns(CLOCK_MONOTONIC), end = began + want.warmup * 1e9, sent = 0;
    int64_t cpu = 0, own = 0, from = began;
    now = began;
    if (want.mode == CLOSED)
        for (int i = 0; i < want.connections; i++) {
            for (int k = 0; k < want.depth; k++) owe(&connections[i], now);
            flush(&connections[i]);
        }
    for (int window = -1; window < want.windows;) {
        poll_once(0); /* to wake us would be the server's work */
        for (; want.mode == OPEN; sent++) {
            int64_t due = began + (int64_t)(sent * 1e9 / want.rate);
            if (due > now) break;
            Connection *c = &connections[sent % want.connections];
            owe(c, due);
            flush(c);
        }
        if (now < end) continue;
        int64_t cpu_then = cpu, own_then = own;
        cpu = server_cpu();
        own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        now = clock_ns(CLOCK_MONOTONIC);
        if (window++ >= 0) report((now - from) / 1e9, cpu - cpu_then, own - own_then);
        clear();
        from = now;
        end = now + want.seconds * 1e9;
    }
}

static void hold(void) {
    printf("{\"ready\": %d}\n", ready);
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    while (!finishing) poll_once(1000);
}

static int under_way(void) {
    for (int i = 0; i < opened; i++)
        if (connections[i].state == UPGRADED &&
            (connections[i].owed || connections[i].sent != connections[i].received))
            return 1;
    return 0;
}

/* Wait for the echoes that are due, and close every connection as the RFC has it. */
static void finish(void) {
    int64_t end = clock_ns(CLOCK_MONOTONIC) + 3000000000LL;
    finishing = 1;
    if (want.mode == IDLE) epoll_ctl(poller, EPOLL_CTL_DEL, 0, NULL);
    while (under_way() && now < end) poll_once(10);
    for (int i = 0; i < opened; i++)
        if (connections[i].fd >= 0 && connections[i].state == UPGRADED)
            end_politely(&connections[i]);
    while (alive && now < end) poll_once(10);
}

static void read_options(int argc, char **argv) {
    static const struct option OPTIONS[] = {
        {"mode", 1, 0, 'm'},    {"port", 1, 0, 'p'},       {"connections", 1, 0, 'c'},
        {"depth", 1, 0, 'd'},   {"rate", 1, 0, 'r'},       {"size", 1, 0, 's'},
        {"payload", 1, 0, 'k'}, {"compressed", 1, 0, 'z'}, {"warmup", 1, 0, 'w'},
        {"seconds", 1, 0, 't'}, {"windows", 1, 0, 'n'},    {"pid", 1, 0, 'i'},
        {"deflate", 0, 0, 'Z'},    {"help", 0, 0, 'h'},
        {0}};
    for (int o; (o = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) switch (o) {
        case 'm':
            for (want.mode = 0; MODES[want.mode] && strcmp(optarg, MODES[want.mode]);) want.mode++;
            if (!MODES[want.mode]) die("no mode %s; see --help", optarg);
            break;
        case 'p': want.port = atoi(optarg); break;
        case 'c': want.connections = atoi(optarg); break;
        case 'd': want.depth = atoi(optarg); break;
        case 'r': want.rate = atof(optarg); break;
        case 's': want.size = atol(optarg); break;
        case 'k': want.payload = optarg; break;
        case 'z': want.compressed = optarg; break;
        case 'Z': want.deflate = 1; break;
        case 'w': want.warmup = atof(optarg); break;
        case 't': want.seconds = atof(optarg); break;
        case 'n': want.windows = atoi(optarg); break;
        case 'i':
            if (want.pid_count == 64) die("too many processes");
            want.pids[want.pid_count++] = atoi(optarg);
            break;
        case 'h': fputs(USAGE, stdout); exit(0);
        default: fputs(USAGE, stderr); exit(2);
        }
    if (optind < argc || want.port <= 0 || want.connections <= 0 || want.windows <= 0) {
        fputs(USAGE, stderr);
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)want.connections + 32)
        die("the file limit is %lu: too low for %d connections", (unsigned long)files.rlim_cur,
            want.connections);
    make_messages();
    connections = need(calloc(want.connections, sizeof *connections));
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll: %s", strerror(errno));
    now = clock_ns(CLOCK_MONOTONIC);
    fill();
    int64_t limit = now + 60000000000LL;
    while (want.mode != HANDSHAKE && ready < want.connections) {
        poll_once(1000);
        if (now > limit) die("%d of %d connections in a minute", ready, want.connections);
    }
    if (want.mode == IDLE)
        hold();
    else
        run_windows();
    finish();
    return 0;
}
