/* A libFuzzer target: an interpreter with the codec in C linked into it, where the sanitizers
 * see it, and law.py, which judges each input.
 *
 * Three things are lent to law.py, as the module _fuzz: `exact`, a buffer with nothing around
 * its bytes; `ends`, which sees whether the byte behind an object's own is still zero; and
 * `watch`: what is run meanwhile of the package in Python is told to libFuzzer line by line,
 * next to what it sees of the C code by itself, since most ways through a session differ in
 * Python only.  It takes as long as all the rest, so one session of three is watched.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

PyMODINIT_FUNC PyInit__codec(void);

/* Lines of Python */

#define COUNTERS 16384

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

static const char *const watched[] = {"/echo_service/", "/wsproto/"};

static int
is_watched(PyCodeObject *code)
{
    static PyObject *latest;
    static int answer;
    const char *name;

    if (code->co_filename == latest)
        return answer;
    answer = 0;
    name = PyUnicode_AsUTF8(code->co_filename);
    for (size_t i = 0; name != NULL && i < sizeof watched / sizeof *watched; i++)
        answer |= strstr(name, watched[i]) != NULL;
    Py_XSETREF(latest, Py_NewRef(code->co_filename));
    return answer;
}

static int
trace(PyObject *Py_UNUSED(self), PyFrameObject *frame, int what, PyObject *Py_UNUSED(value))
{
    PyCodeObject *code;

    if (what != PyTrace_LINE)
        return 0;
    code = PyFrame_GetCode(frame);
    if (is_watched(code)) {
        unsigned place = (unsigned)code->co_firstlineno * 2654435761u;
        place = (place >> 8) + (unsigned)PyFrame_GetLineNumber(frame) * 31u;
        if (counters[place % COUNTERS] < 255)
            counters[place % COUNTERS]++;
    }
    Py_DECREF(code);
    return 0;
}

/* The module _fuzz */

typedef struct {
    PyObject_HEAD
    uint8_t *block;
    uint8_t *data;
    Py_ssize_t size;
} Exact;

static int
exact_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    Exact *exact = (Exact *)self;

    return PyBuffer_FillInfo(view, self, exact->data, exact->size, 0, flags);
}

static PyBufferProcs exact_buffer = {exact_getbuffer, NULL};

static void
exact_dealloc(PyObject *self)
{
    free(((Exact *)self)->block);
    PyObject_Free(self);
}

static PyTypeObject exact_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "_fuzz.Exact",
    .tp_basicsize = sizeof(Exact),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = exact_dealloc,
    .tp_as_buffer = &exact_buffer,
};

/* A view of a copy in a block of just its size; of nothing, the end of a block of one. */
static PyObject *
exact(PyObject *Py_UNUSED(module), PyObject *data)
{
    Exact *self;
    PyObject *view;
    char *bytes;
    Py_ssize_t size;

    if (PyBytes_AsStringAndSize(data, &bytes, &size) < 0)
        return NULL;
    self = PyObject_New(Exact, &exact_type);
    if (self == NULL)
        return NULL;
    self->block = malloc(size ? (size_t)size : 1);
    if (self->block == NULL)
        abort();
    self->data = self->block + !size;
    self->size = size;
    memcpy(self->data, bytes, (size_t)size);
    view = PyMemoryView_FromObject((PyObject *)self);
    Py_DECREF(self);
    return view;
}

static PyObject *
ends(PyObject *Py_UNUSED(module), PyObject *data)
{
    if (PyBytes_Check(data))
        return PyBool_FromLong(!PyBytes_AS_STRING(data)[PyBytes_GET_SIZE(data)]);
    if (PyByteArray_Check(data))
        return PyBool_FromLong(!PyByteArray_AS_STRING(data)[PyByteArray_GET_SIZE(data)]);
    PyErr_SetString(PyExc_TypeError, "bytes or a bytearray");
    return NULL;
}

static PyObject *
watch(PyObject *Py_UNUSED(module), PyObject *on)
{
    PyEval_SetTrace(on == Py_True ? trace : NULL, NULL);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"exact", exact, METH_O, NULL},
    {"ends", ends, METH_O, NULL},
    {"watch", watch, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_fuzz", NULL, -1, functions, NULL, NULL, NULL, NULL,
};

static PyObject *
init_fuzz(void)
{
    if (PyType_Ready(&exact_type) < 0)
        return NULL;
    return PyModule_Create(&module);
}

/* The target */

static PyObject *check;

static void
or_die(int good)
{
    if (good)
        return;
    if (PyErr_Occurred())
        PyErr_Print();
    abort();
}

/* PYTHON is the program of the environment that has the package: its paths are this one's. */
static void
start(void)
{
    PyConfig config;
    PyStatus status;

    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.write_bytecode = 0;
    status = PyConfig_SetBytesString(&config, &config.program_name, PYTHON);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

int
LLVMFuzzerInitialize(int *Py_UNUSED(argc), char ***Py_UNUSED(argv))
{
    PyObject *law;

    or_die(PyImport_AppendInittab("_codec", PyInit__codec) == 0);
    or_die(PyImport_AppendInittab("_fuzz", init_fuzz) == 0);
    start();
    or_die(PyRun_SimpleString("import sys; sys.path.insert(0, '')") == 0);
    law = PyImport_ImportModule("fuzz.law");
    or_die(law != NULL);
    check = PyObject_GetAttrString(law, "check");
    or_die(check != NULL);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *result = PyObject_CallFunction(check, "y#", (const char *)data, (Py_ssize_t)size);

    or_die(result != NULL);
    Py_DECREF(result);
    return 0;
}
