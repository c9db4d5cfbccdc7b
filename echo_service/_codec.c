/* The codec in C: the functions of codec.py, where they are documented, to the letter.
 *
 * First comes the arithmetic on bytes, without Python; then the thin layer that takes and
 * returns Python objects, in the stable ABI of 3.11.  tests/test_codec.py and fuzz/ hold the
 * two codecs together.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* Set in each byte that is not ASCII, of eight. */
#define HIGH_BITS UINT64_C(0x8080808080808080)

/* A masked frame that is complete; `header` is the size of its header, key included. */
typedef struct {
    const uint8_t *key;
    size_t header;
    size_t length;
} Frame;

/* Parse a simple frame of `size` bytes of data at `p`; 0 if there is none (RFC 6455 5.2). */
static int
parse(const uint8_t *p, size_t size, uint64_t limit, Frame *frame)
{
    uint64_t length;
    size_t header;

    if (size < 6 || !(p[1] & 0x80))
        return 0;
    length = p[1] & 0x7f;
    header = 6;
    if (length == 126) {
        if (size < 8)
            return 0;
        length = (uint64_t)p[2] << 8 | p[3];
        header = 8;
        if (length < 126)
            return 0;
    }
    else if (length == 127) {
        if (size < 14)
            return 0;
        length = 0;
        for (int i = 2; i < 10; i++)
            length = length << 8 | p[i];
        header = 14;
        if (length < 65536)
            return 0;
    }
    switch (p[0]) {
    case 0x81:
    case 0x82:
        if (length > limit)
            return 0;
        break;
    case 0x89:
    case 0x8a:
        if (length > 125)
            return 0;
        break;
    default:
        return 0;
    }
    if (length > size - header)
        return 0;
    frame->key = p + header - 4;
    frame->header = header;
    frame->length = (size_t)length;
    return 1;
}

/* Write the header of an unmasked frame; returns its size. */
static size_t
write_header(uint8_t *out, uint8_t first, size_t length)
{
    out[0] = first;
    if (length < 126) {
        out[1] = (uint8_t)length;
        return 2;
    }
    if (length < 65536) {
        out[1] = 126;
        out[2] = (uint8_t)(length >> 8);
        out[3] = (uint8_t)length;
        return 4;
    }
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)((uint64_t)length >> (56 - 8 * i));
    return 10;
}

/* Unmask `size` bytes on their way (RFC 6455 5.3); returns the OR of them all, 8 bytes wide. */
static uint64_t
unmask(uint8_t *out, const uint8_t *in, size_t size, const uint8_t *key)
{
    uint64_t mask, word, all = 0;
    size_t i = 0;

    memcpy(&mask, key, 4);
    memcpy((uint8_t *)&mask + 4, key, 4);
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, in + i, 8);
        word ^= mask;
        memcpy(out + i, &word, 8);
        all |= word;
    }
    for (; i < size; i++) {
        out[i] = in[i] ^ key[i & 3];
        all |= out[i];
    }
    return all;
}

/* The end of the last whole character in `p`, from `start` on; -1 once it can't be UTF-8. */
static Py_ssize_t
whole_characters(const uint8_t *p, size_t start, size_t size)
{
    while (start < size) {
        uint8_t lead = p[start], low = 0x80, high = 0xbf;
        size_t more;

        if (lead < 0x80) {
            uint64_t word;
            while (size - start >= 8) {
                memcpy(&word, p + start, 8);
                if (word & HIGH_BITS)
                    break;
                start += 8;
            }
            while (start < size && p[start] < 0x80)
                start++;
            continue;
        }
        /* RFC 3629 4: what the byte after the lead may be tells surrogates, overlong forms
         * and what is beyond U+10FFFF from the rest. */
        if (lead < 0xc2 || lead > 0xf4)
            return -1;
        if (lead < 0xe0)
            more = 1;
        else if (lead < 0xf0) {
            more = 2;
            if (lead == 0xe0)
                low = 0xa0;
            else if (lead == 0xed)
                high = 0x9f;
        }
        else {
            more = 3;
            if (lead == 0xf0)
                low = 0x90;
            else if (lead == 0xf4)
                high = 0x8f;
        }
        for (size_t i = 1; i <= more; i++) {
            if (start + i == size)
                return (Py_ssize_t)start;
            if (p[start + i] < low || p[start + i] > high)
                return -1;
            low = 0x80;
            high = 0xbf;
        }
        start += more + 1;
    }
    return (Py_ssize_t)start;
}

/* The layer to Python */

static PyObject *
codec_echo(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer data;
    PyObject *out, *result;
    const uint8_t *p;
    uint8_t *begin, *end;
    size_t taken = 0, frames = 0, room = 0;
    Py_ssize_t texts = 0, binaries = 0, octets = 0;
    uint64_t limit;
    Frame frame;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "echo(data, limit)");
        return NULL;
    }
    limit = PyLong_AsUnsignedLongLong(args[1]);
    if (limit == UINT64_MAX && PyErr_Occurred())
        return NULL;
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    p = data.buf;
    /* Once for the size of the answer, which can't be changed, and once for the answer. */
    for (; parse(p + taken, (size_t)data.len - taken, limit, &frame); frames++) {
        if (p[taken] != 0x8a)
            room += frame.header - 4 + frame.length;
        taken += frame.header + frame.length;
    }
    out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (out == NULL) {
        PyBuffer_Release(&data);
        return NULL;
    }
    begin = end = (uint8_t *)PyBytes_AsString(out);
    taken = 0;
    for (; frames; frames--) {
        parse(p + taken, (size_t)data.len - taken, limit, &frame);
        const uint8_t *payload = frame.key + 4;
        uint8_t first = p[taken], *echo;

        if (first != 0x8a) {
            uint64_t all;
            echo = end + write_header(end, first == 0x89 ? 0x8a : first, frame.length);
            all = unmask(echo, payload, frame.length, frame.key);
            if (first == 0x81) {
                if ((all & HIGH_BITS) &&
                    whole_characters(echo, 0, frame.length) != (Py_ssize_t)frame.length)
                    break;
                texts++;
                octets += (Py_ssize_t)frame.length;
            }
            else if (first == 0x82) {
                binaries++;
                octets += (Py_ssize_t)frame.length;
            }
            end = echo + frame.length;
        }
        taken += frame.header + frame.length;
    }
    PyBuffer_Release(&data);
    if ((size_t)(end - begin) < room) { /* it ends at text that is not UTF-8 */
        PyObject *whole = out;
        out = PyBytes_FromStringAndSize((const char *)begin, end - begin);
        Py_DECREF(whole);
        if (out == NULL)
            return NULL;
    }
    result = Py_BuildValue("(nN(nnn))", (Py_ssize_t)taken, out, texts, binaries, octets);
    return result;
}

static PyObject *
codec_append(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer data;
    Py_ssize_t size;
    uint64_t all;

    if (count != 3 || !PyByteArray_Check(args[0]) || !PyBytes_Check(args[2]) ||
        PyBytes_Size(args[2]) != 4) {
        PyErr_SetString(PyExc_TypeError, "append(echo: bytearray, data, key: bytes, four of them)");
        return NULL;
    }
    if (PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    size = PyByteArray_Size(args[0]);
    if (PyByteArray_Resize(args[0], size + data.len) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    all = unmask((uint8_t *)PyByteArray_AsString(args[0]) + size, data.buf, (size_t)data.len,
                 (const uint8_t *)PyBytes_AsString(args[2]));
    PyBuffer_Release(&data);
    return PyBool_FromLong(!(all & HIGH_BITS));
}

static PyObject *
codec_utf8(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t start;

    if (count != 2 || !PyByteArray_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "utf8(echo: bytearray, start)");
        return NULL;
    }
    start = PyLong_AsSsize_t(args[1]);
    if (start == -1 && PyErr_Occurred())
        return NULL;
    if (start < 0) {
        PyErr_SetString(PyExc_ValueError, "start is negative");
        return NULL;
    }
    return PyLong_FromSsize_t(whole_characters((const uint8_t *)PyByteArray_AsString(args[0]),
                                               (size_t)start,
                                               (size_t)PyByteArray_Size(args[0])));
}

static PyMethodDef functions[] = {
    {"echo", (PyCFunction)(void (*)(void))codec_echo, METH_FASTCALL, NULL},
    {"append", (PyCFunction)(void (*)(void))codec_append, METH_FASTCALL, NULL},
    {"utf8", (PyCFunction)(void (*)(void))codec_utf8, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_codec", NULL, 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__codec(void)
{
    return PyModuleDef_Init(&module);
}
