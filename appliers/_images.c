/* Reads pgoutput's TupleData for appliers/images.py, which does the same without a compiler.

   A TupleData is an int16 number of columns, then per column a kind byte (n NULL, u unchanged, t text,
   b binary) and, for t and b, an int32 length and the value; everything in network order (PostgreSQL
   manual, "Logical Replication Message Formats"). Every length is checked before it is followed: any
   bytes give a row or the error that `Columns` was made with. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "_lines.h"

/* MaxTupleAttributeNumber, src/include/access/htup_details.h: no row has more columns. */
#define MOST 1664

typedef struct {
    const unsigned char *at; /* the kind byte */
    uint32_t size;           /* of the value behind it and its length */
} Field;

typedef struct {
    PyObject_HEAD
    int columns;
    int last; /* columns from here on are not looked at */
    int wanted_count;
    short *wanted;
    PyObject *unchanged;
    PyObject *error;
} Columns;

static uint32_t
number(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Finds the columns of an image, up to the last that is wanted. -1 with an error set. */
static int
scan(const Columns *self, PyObject *image, Field *fields)
{
    if (!PyBytes_Check(image)) {
        PyErr_Format(PyExc_TypeError, "expected bytes, got %.100s", Py_TYPE(image)->tp_name);
        return -1;
    }
    const unsigned char *p = (const unsigned char *)PyBytes_AS_STRING(image);
    const unsigned char *end = p + PyBytes_GET_SIZE(image);
    if (end - p < 2 || (p[0] << 8 | p[1]) != self->columns) {
        PyErr_SetString(self->error, "wrong number of columns");
        return -1;
    }
    p += 2;
    for (int i = 0; i < self->last; i++) {
        if (p == end)
            goto cut;
        fields[i].at = p;
        fields[i].size = 0;
        switch (*p++) {
        case 'b':
        case 't':
            if (end - p < 4)
                goto cut;
            fields[i].size = number(p);
            p += 4;
            if ((size_t)(end - p) < fields[i].size)
                goto cut;
            p += fields[i].size;
            break;
        case 'n':
        case 'u':
            break;
        default:
            PyErr_Format(self->error, "unknown kind %d of column %d", p[-1], i);
            return -1;
        }
    }
    if (self->last == self->columns && p != end) {
        PyErr_Format(self->error, "%zd bytes too many", (Py_ssize_t)(end - p));
        return -1;
    }
    return 0;
cut:
    PyErr_SetString(self->error, "row cut short");
    return -1;
}

static PyObject *
value(const Columns *self, const Field *field)
{
    switch (*field->at) {
    case 'n':
        Py_RETURN_NONE;
    case 'u':
        return Py_NewRef(self->unchanged);
    default:
        return PyBytes_FromStringAndSize((const char *)field->at + 5, field->size);
    }
}

PyDoc_STRVAR(read_doc, "read(image) -> tuple\n\nThe wanted values: bytes, None, or `unchanged`.");

static PyObject *
Columns_read(Columns *self, PyObject *image)
{
    Field fields[MOST];
    if (scan(self, image, fields) < 0)
        return NULL;
    PyObject *row = PyTuple_New(self->wanted_count);
    for (int i = 0; row != NULL && i < self->wanted_count; i++) {
        PyObject *v = value(self, &fields[self->wanted[i]]);
        if (v == NULL)
            Py_CLEAR(row);
        else
            PyTuple_SET_ITEM(row, i, v);
    }
    return row;
}

PyDoc_STRVAR(has_unchanged_doc,
             "has_unchanged(image) -> bool\n\nWhether a wanted value is unchanged.");

static PyObject *
Columns_has_unchanged(Columns *self, PyObject *image)
{
    Field fields[MOST];
    if (scan(self, image, fields) < 0)
        return NULL;
    for (int i = 0; i < self->wanted_count; i++)
        if (*fields[self->wanted[i]].at == 'u')
            Py_RETURN_TRUE;
    Py_RETURN_FALSE;
}

PyDoc_STRVAR(updates_doc,
             "updates(deltas, op) -> dict | None\n\n"
             "The new images by their wanted values, where every delta is of kind `op`, leaves its key\n"
             "as it is, and no key comes twice; None where that is not so.");

static PyObject *
Columns_updates(Columns *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "expected a list of deltas and a kind of change");
        return NULL;
    }
    PyObject *images = PyDict_New();
    for (Py_ssize_t i = 0; images != NULL && i < PyList_GET_SIZE(args[0]); i++) {
        PyObject *delta = PyList_GET_ITEM(args[0], i);
        if (!PyTuple_Check(delta) || PyTuple_GET_SIZE(delta) < 4) {
            PyErr_SetString(PyExc_TypeError, "a delta is a tuple");
            Py_CLEAR(images);
            break;
        }
        if (PyTuple_GET_ITEM(delta, 0) != args[1] || PyTuple_GET_ITEM(delta, 2) != Py_None)
            goto others;
        PyObject *image = PyTuple_GET_ITEM(delta, 3);
        PyObject *key = Columns_read(self, image);
        PyObject *there = key == NULL ? NULL : PyDict_SetDefault(images, key, image);
        Py_XDECREF(key);
        if (there == NULL)
            Py_CLEAR(images);
        else if (there != image)
            goto others;
    }
    return images;
others:
    Py_DECREF(images);
    Py_RETURN_NONE;
}

static char *
put(char *out, const void *from, size_t size)
{
    memcpy(out, from, size);
    return out + size;
}

static char *
put_number(char *out, uint32_t n)
{
    const unsigned char bytes[] = {n >> 24, n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff};
    return put(out, bytes, 4);
}

/* A column with its length, as everything binary of PostgreSQL's has it. NULL with an error set. */
static char *
put_column(const Columns *self, const Field *field, char *out)
{
    if (*field->at == 'b')
        return put(out, field->at + 1, 4 + (size_t)field->size);
    if (*field->at == 'n')
        return put_number(out, 0xffffffff);
    PyErr_Format(self->error, "a column of kind %d has no binary form", *field->at);
    return NULL;
}

/* An image's columns as a row of COPY BINARY. NULL with an error set. */
static char *
binary_row(const Columns *self, const Field *fields, const char *types, char *out)
{
    (void)types;
    *out++ = (char)(self->wanted_count >> 8);
    *out++ = (char)self->wanted_count;
    for (int i = 0; out != NULL && i < self->wanted_count; i++)
        out = put_column(self, &fields[self->wanted[i]], out);
    return out;
}

/* An image's columns as an element of an array of rows (record_send in the server's rowtypes.c): its
   size, the number of columns, and each with its type in front. NULL with an error set. */
static char *
array_row(const Columns *self, const Field *fields, const char *types, char *out)
{
    char *begun = out;
    out = put_number(out + 4, (uint32_t)self->wanted_count);
    for (int i = 0; out != NULL && i < self->wanted_count; i++)
        out = put_column(self, &fields[self->wanted[i]], put(out, types + 4 * i, 4));
    if (out != NULL)
        put_number(begun, (uint32_t)(out - begun - 4));
    return out;
}

/* An image's columns as a line of COPY TEXT. NULL with an error set. */
static char *
text_row(const Columns *self, const Field *fields, const char *types, char *out)
{
    (void)types;
    for (int i = 0; i < self->wanted_count; i++) {
        const Field *f = &fields[self->wanted[i]];
        if (*f->at == 't')
            out = put_escaped(out, f->at + 5, f->size);
        else if (*f->at == 'n')
            out = put(out, "\\N", 2);
        else {
            PyErr_Format(self->error, "column %d of kind %d cannot go into COPY TEXT",
                         self->wanted[i], *f->at);
            return NULL;
        }
        *out++ = '\t';
    }
    if (self->wanted_count)
        out[-1] = '\n';
    else
        *out++ = '\n';
    return out;
}

typedef char *(*MakeRow)(const Columns *, const Field *, const char *types, char *out);

/* Joins what `make` makes of each image; it writes at most `factor` bytes for each of an image's, and 8
   more for each wanted column and each row. */
static PyObject *
rows(Columns *self, PyObject *images, MakeRow make, const char *types, Py_ssize_t factor)
{
    if (!PyList_Check(images)) {
        PyErr_SetString(PyExc_TypeError, "expected a list of images");
        return NULL;
    }
    Py_ssize_t most = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(images); i++) {
        PyObject *image = PyList_GET_ITEM(images, i);
        /* What is not bytes is refused by `scan`. */
        if (PyBytes_Check(image))
            most += factor * PyBytes_GET_SIZE(image) + 8 * (self->wanted_count + 1);
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, most);
    if (made == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(made);
    Field fields[MOST];
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(images); i++) {
        if (scan(self, PyList_GET_ITEM(images, i), fields) < 0
            || (out = make(self, fields, types, out)) == NULL) {
            Py_DECREF(made);
            return NULL;
        }
    }
    _PyBytes_Resize(&made, out - PyBytes_AS_STRING(made));
    return made;
}

PyDoc_STRVAR(binary_rows_doc,
             "binary_rows(images) -> bytes\n\nThe wanted columns of images, as rows for COPY BINARY.");

static PyObject *
Columns_binary_rows(Columns *self, PyObject *images)
{
    return rows(self, images, binary_row, NULL, 1);
}

PyDoc_STRVAR(array_rows_doc,
             "array_rows(images, types) -> bytes\n\n"
             "The wanted columns of images, as elements of an array of rows; `types` has the numbers of\n"
             "the columns' types, four bytes each.");

static PyObject *
Columns_array_rows(Columns *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_Check(args[1])
        || PyBytes_GET_SIZE(args[1]) != 4 * (Py_ssize_t)self->wanted_count) {
        PyErr_SetString(PyExc_TypeError, "expected images and four bytes for the type of each column");
        return NULL;
    }
    return rows(self, args[0], array_row, PyBytes_AS_STRING(args[1]), 1);
}

PyDoc_STRVAR(text_rows_doc,
             "text_rows(images) -> bytes\n\nThe wanted columns of images, as lines for COPY TEXT.");

static PyObject *
Columns_text_rows(Columns *self, PyObject *images)
{
    return rows(self, images, text_row, NULL, 2);
}

static PyObject *
Columns_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int columns;
    PyObject *wanted, *unchanged, *error;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Columns takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "iO!OO", &columns, &PyTuple_Type, &wanted, &unchanged, &error))
        return NULL;
    if (columns < 0 || columns > MOST || PyTuple_GET_SIZE(wanted) > MOST) {
        PyErr_Format(PyExc_ValueError, "no row has %d columns", columns);
        return NULL;
    }
    Columns *self = (Columns *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->unchanged = Py_NewRef(unchanged);
    self->error = Py_NewRef(error);
    self->columns = columns;
    self->wanted_count = (int)PyTuple_GET_SIZE(wanted);
    self->wanted = PyMem_Calloc((size_t)self->wanted_count + 1, sizeof(short));
    if (self->wanted == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    /* Once each: `rows` makes room for what an image has. */
    char seen[MOST] = {0};
    for (int i = 0; i < self->wanted_count; i++) {
        long column = PyLong_AsLong(PyTuple_GET_ITEM(wanted, i));
        if (column < 0 || column >= columns || seen[column]++) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_ValueError, "column %ld of %d is not there, or wanted twice", column,
                             columns);
            Py_DECREF(self);
            return NULL;
        }
        self->wanted[i] = (short)column;
        if (column >= self->last)
            self->last = (int)column + 1;
    }
    return (PyObject *)self;
}

static void
Columns_dealloc(Columns *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->unchanged);
    Py_XDECREF(self->error);
    PyMem_Free(self->wanted);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef Columns_methods[] = {
    {"read", (PyCFunction)Columns_read, METH_O, read_doc},
    {"has_unchanged", (PyCFunction)Columns_has_unchanged, METH_O, has_unchanged_doc},
    {"updates", (PyCFunction)(void (*)(void))Columns_updates, METH_FASTCALL, updates_doc},
    {"binary_rows", (PyCFunction)Columns_binary_rows, METH_O, binary_rows_doc},
    {"array_rows", (PyCFunction)(void (*)(void))Columns_array_rows, METH_FASTCALL, array_rows_doc},
    {"text_rows", (PyCFunction)Columns_text_rows, METH_O, text_rows_doc},
    {NULL},
};

PyDoc_STRVAR(Columns_doc,
             "Columns(columns, wanted, unchanged, error)\n\n"
             "Reads the columns `wanted`, in this order, of images that have `columns` of them; those\n"
             "behind the last wanted one are not looked at. Raises `error` for anything else.");

static PyType_Slot Columns_slots[] = {
    {Py_tp_doc, (void *)Columns_doc},
    {Py_tp_new, Columns_new},
    {Py_tp_dealloc, Columns_dealloc},
    {Py_tp_methods, Columns_methods},
    {0, NULL},
};

static PyType_Spec Columns_spec = {
    .name = "appliers._images.Columns",
    .basicsize = sizeof(Columns),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Columns_slots,
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&Columns_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Columns", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_images",
    .m_doc = "Row images of pgoutput, read in C.",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__images(void)
{
    return PyModuleDef_Init(&definition);
}
