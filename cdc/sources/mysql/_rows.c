/* Rows of a binary log as lines of text, for images.py, whose generated functions do the same.

   The layouts stand beside the Python: values.py, decimals.py, temporal.py and texts.py. Whatever is not
   as it must be, cut short, or of a value that no server writes, makes `rows` and `pairs` give None:
   Python then reads the event again and says what is wrong. So nothing has to be refused here, only
   nothing accepted that is not right. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "../../../appliers/_lines.h"

typedef enum { INTEGER, DECIMAL, DOUBLE, DATE, DATETIME, TIMESTAMP, TIME, YEAR, TEXT, HEX, CALL, LABELS } Kind;

static const char *const KINDS[] = {"integer", "decimal", "double", "date", "datetime", "timestamp",
                                    "time", "year", "text", "hex", "call", "labels"};

typedef struct {
    char present; /* in the log */
    char wanted;  /* in the line */
    Kind kind;
    int size;     /* bytes of the value; of what has a length of its own, the bytes of that */
    int more;     /* integer: signed; timestamp: little-endian; digits of a fraction, of a decimal's */
    int digits;   /* decimal: before the point */
    PyObject *object; /* call: the function; labels: the tuple */
} Column;

typedef struct {
    PyObject_HEAD
    Py_ssize_t count;
    Py_ssize_t octets; /* of the bitmap of NULLs before each row */
    Column *columns;
    char *line; /* the line in the making */
    size_t used, room;
} Lines;

/* Makes room for so many bytes; where to put them, or NULL with an error set. */
static char *
space(Lines *self, size_t size)
{
    if (self->room - self->used < size) {
        size_t room = 2 * self->room + size;
        char *line = PyMem_Realloc(self->line, room);
        if (line == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        self->line = line;
        self->room = room;
    }
    return self->line + self->used;
}

static uint64_t
little(const unsigned char *p, int size)
{
    uint64_t n = 0;
    while (size--)
        n = n << 8 | p[size];
    return n;
}

static uint64_t
big(const unsigned char *p, int size)
{
    uint64_t n = 0;
    for (int i = 0; i < size; i++)
        n = n << 8 | p[i];
    return n;
}

/* At least `width` digits, with noughts before them. */
static char *
put_number(char *out, uint64_t n, int width)
{
    char digits[20];
    int count = 0;
    do {
        digits[count++] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    while (width-- > count)
        *out++ = '0';
    while (count)
        *out++ = digits[--count];
    return out;
}

static const uint64_t POWERS[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000};
static const int BYTES[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 4};

/* The functions that put a value give where it ends, or NULL: without an error set, it is for Python. */

static char *
put_integer(const Column *c, const unsigned char *p, char *out)
{
    uint64_t n = little(p, c->size);
    if (c->more && p[c->size - 1] & 0x80) {
        *out++ = '-';
        n = ~n + 1;
        if (c->size < 8)
            n &= ((uint64_t)1 << 8 * c->size) - 1;
    }
    return put_number(out, n, 1);
}

static char *
put_decimal(const Column *c, const unsigned char *p, char *out)
{
    unsigned char bytes[32]; /* of at most 65 digits */
    unsigned char flip = p[0] & 0x80 ? 0 : 0xff;
    for (int i = 0; i < c->size; i++)
        bytes[i] = p[i] ^ flip;
    bytes[0] ^= 0x80;
    if (flip)
        *out++ = '-';
    const unsigned char *at = bytes;
    int begun = 0;
    for (int left = c->digits; left > 0;) {
        int digits = left % 9 ? left % 9 : 9;
        uint64_t group = big(at, BYTES[digits]);
        if (group >= POWERS[digits])
            return NULL;
        if (group || begun) {
            out = put_number(out, group, begun ? digits : 1);
            begun = 1;
        }
        at += BYTES[digits];
        left -= digits;
    }
    if (!begun)
        *out++ = '0';
    if (c->more)
        *out++ = '.';
    for (int left = c->more; left > 0;) {
        int digits = left < 9 ? left : 9;
        uint64_t group = big(at, BYTES[digits]);
        if (group >= POWERS[digits])
            return NULL;
        out = put_number(out, group, digits);
        at += BYTES[digits];
        left -= digits;
    }
    return out;
}

static char *
put_date(char *out, uint64_t year, uint64_t month, uint64_t day)
{
    if (year > 9999 || month > 12 || day > 31)
        return NULL;
    out = put_number(out, year, 4);
    *out++ = '-';
    out = put_number(out, month, 2);
    *out++ = '-';
    return put_number(out, day, 2);
}

static char *
put_clock(char *out, uint64_t hour, uint64_t minute, uint64_t second, uint64_t hours)
{
    if (hour >= hours || minute > 59 || second > 59)
        return NULL;
    out = put_number(out, hour, 2);
    *out++ = ':';
    out = put_number(out, minute, 2);
    *out++ = ':';
    return put_number(out, second, 2);
}

/* A fraction, kept for an even number of digits. */
static char *
put_fraction(char *out, uint64_t fraction, int digits)
{
    if (out == NULL || fraction >= POWERS[digits + digits % 2])
        return NULL;
    if (!digits)
        return out;
    *out++ = '.';
    return put_number(out, digits % 2 ? fraction / 10 : fraction, digits);
}

static char *
put_datetime(const Column *c, const unsigned char *p, char *out)
{
    uint64_t n = big(p, 5);
    uint64_t months = n >> 22 & 0x1ffff;
    if (!(n >> 39) || (out = put_date(out, months / 13, months % 13, n >> 17 & 31)) == NULL)
        return NULL;
    *out++ = ' ';
    out = put_clock(out, n >> 12 & 31, n >> 6 & 63, n & 63, 24);
    return put_fraction(out, big(p + 5, (c->more + 1) / 2), c->more);
}

static char *
put_timestamp(const Column *c, const unsigned char *p, char *out)
{
    uint64_t seconds = c->digits ? little(p, 4) : big(p, 4);
    uint64_t fraction = big(p + 4, (c->more + 1) / 2);
    uint64_t year = 0, month = 0, day = 0;
    if (seconds || fraction) {
        /* Days of years that begin with March, counted from 0000-03-01. */
        uint64_t days = seconds / 86400 + 719468;
        uint64_t era = days / 146097, of_era = days % 146097;
        uint64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
        uint64_t of_year = of_era - (365 * y + y / 4 - y / 100);
        uint64_t m = (5 * of_year + 2) / 153;
        day = of_year - (153 * m + 2) / 5 + 1;
        month = m < 10 ? m + 3 : m - 9;
        year = y + 400 * era + (month <= 2);
    }
    out = put_date(out, year, month, day);
    if (out == NULL)
        return NULL;
    *out++ = ' ';
    out = put_clock(out, seconds % 86400 / 3600, seconds % 3600 / 60, seconds % 60, 24);
    return put_fraction(out, fraction, c->more);
}

static char *
put_time(const Column *c, const unsigned char *p, char *out)
{
    int octets = (c->more + 1) / 2;
    int64_t value = (int64_t)big(p, 3 + octets) - ((int64_t)0x800000 << 8 * octets);
    uint64_t whole = (uint64_t)(value < 0 ? -value : value);
    uint64_t seconds = whole >> 8 * octets;
    if (value < 0)
        *out++ = '-';
    out = put_clock(out, seconds >> 12, seconds >> 6 & 63, seconds & 63, 839);
    return put_fraction(out, whole & (((uint64_t)1 << 8 * octets) - 1), c->more);
}

static char *
put_fixed(const Column *c, const unsigned char *p, char *out)
{
    switch (c->kind) {
    case INTEGER:
        return put_integer(c, p, out);
    case DECIMAL:
        return put_decimal(c, p, out);
    case DATE: {
        uint64_t n = little(p, 3);
        return put_date(out, n >> 9, n >> 5 & 15, n & 31);
    }
    case DATETIME:
        return put_datetime(c, p, out);
    case TIMESTAMP:
        return put_timestamp(c, p, out);
    case TIME:
        return put_time(c, p, out);
    default: /* YEAR */
        return put_number(out, *p ? 1900 + *p : 0, 4);
    }
}

/* The longest that `put_fixed` writes: a DECIMAL of 65 digits, its sign and its point. */
#define LONGEST 80

/* -1 with an error set. */
static int
add_text(Lines *self, const unsigned char *p, size_t size)
{
    char *out = space(self, 2 * size);
    if (out == NULL)
        return -1;
    out = put_escaped(out, p, size);
    self->used = (size_t)(out - self->line);
    return 0;
}

static int
add_hex(Lines *self, const unsigned char *p, size_t size)
{
    static const char DIGITS[] = "0123456789abcdef";
    char *out = space(self, 2 * size + 3);
    if (out == NULL)
        return -1;
    memcpy(out, "\\\\x", 3);
    out += 3;
    for (const unsigned char *end = p + size; p < end; p++) {
        *out++ = DIGITS[*p >> 4];
        *out++ = DIGITS[*p & 15];
    }
    self->used = (size_t)(out - self->line);
    return 0;
}

/* A function's text, or a double's as Python prints it. */
static int
add_object(Lines *self, PyObject *text)
{
    int failed = -1;
    if (text != NULL && PyBytes_Check(text))
        failed = add_text(self, (unsigned char *)PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text));
    else if (text != NULL)
        PyErr_SetString(PyExc_TypeError, "expected bytes");
    Py_XDECREF(text);
    return failed;
}

static int
add_double(Lines *self, const unsigned char *p)
{
    double number = PyFloat_Unpack8((const char *)p, 1);
    if (number == -1.0 && PyErr_Occurred())
        return -1;
    char *text = PyOS_double_to_string(number, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (text == NULL)
        return -1;
    int failed = add_text(self, (unsigned char *)text, strlen(text));
    PyMem_Free(text);
    return failed;
}

/* Adds the value at `*at` and steps over it: 1; 0 if it is for Python; -1 with an error set. */
static int
add_value(Lines *self, const Column *c, const unsigned char **at, const unsigned char *end)
{
    const unsigned char *p = *at;
    if (end - p < c->size)
        return 0;
    size_t size = (size_t)c->size;
    if (c->kind == TEXT || c->kind == HEX || c->kind == CALL) {
        size = little(p, c->size);
        p += c->size;
        if ((size_t)(end - p) < size)
            return 0;
    }
    *at = p + size;
    if (!c->wanted) {
        char *out = space(self, 2);
        if (out == NULL)
            return -1;
        memcpy(out, "\\N", 2);
        self->used += 2;
        return 1;
    }
    switch (c->kind) {
    case TEXT:
        return add_text(self, p, size) < 0 ? -1 : 1;
    case HEX:
        return add_hex(self, p, size) < 0 ? -1 : 1;
    case CALL:
        return add_object(self, PyObject_CallFunction(c->object, "y#", p, (Py_ssize_t)size)) < 0 ? -1 : 1;
    case DOUBLE:
        return add_double(self, p) < 0 ? -1 : 1;
    case LABELS: {
        uint64_t number = little(p, c->size);
        if (number >= (uint64_t)PyTuple_GET_SIZE(c->object))
            return 0;
        return add_object(self, Py_NewRef(PyTuple_GET_ITEM(c->object, (Py_ssize_t)number))) < 0 ? -1 : 1;
    }
    default: {
        char *out = space(self, LONGEST);
        if (out == NULL)
            return -1;
        if ((out = put_fixed(c, p, out)) == NULL)
            return 0;
        self->used = (size_t)(out - self->line);
        return 1;
    }
    }
}

/* One row of many megabytes is no reason to keep them. */
static void
shrink(Lines *self)
{
    if (self->room > 1 << 20) {
        PyMem_Free(self->line);
        self->line = NULL;
        self->used = self->room = 0;
    }
}

/* Appends the line of the row at `*at` and steps over it: 1; 0 if it is for Python; -1 with an error set. */
static int
add_row(Lines *self, const unsigned char **at, const unsigned char *end, PyObject *lines)
{
    const unsigned char *nulls = *at;
    if (end - nulls < self->octets)
        return 0;
    *at += self->octets;
    self->used = 0;
    Py_ssize_t number = 0;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const Column *c = &self->columns[i];
        int null = c->present && nulls[number / 8] >> number % 8 & 1;
        number += c->present;
        if (!c->present || null) {
            char *out = space(self, 2);
            if (out == NULL)
                return -1;
            memcpy(out, null ? "\\N" : "\\=", 2);
            self->used += 2;
        }
        else {
            int added = add_value(self, c, at, end);
            if (added <= 0)
                return added;
        }
        char *out = space(self, 1);
        if (out == NULL)
            return -1;
        *out = i + 1 < self->count ? '\t' : '\n';
        self->used++;
    }
    PyObject *line = PyBytes_FromStringAndSize(self->line, (Py_ssize_t)self->used);
    int failed = line == NULL || PyList_Append(lines, line) < 0;
    Py_XDECREF(line);
    return failed ? -1 : 1;
}

/* The lines of `readers`' rows in turns, from `args[0]`, an event's body, at `args[1]`, to its end: 1 with
   a list for each; 0 if they are for Python; -1 with an error set. */
static int
read_all(Lines **readers, PyObject **lists, int count, PyObject *body, PyObject *start)
{
    Py_ssize_t first = PyLong_AsSsize_t(start);
    if (first == -1 && PyErr_Occurred())
        return -1;
    if (!PyBytes_Check(body) || first < 0 || first > PyBytes_GET_SIZE(body)) {
        PyErr_SetString(PyExc_TypeError, "expected bytes and a position in them");
        return -1;
    }
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(body) + first;
    const unsigned char *end = (const unsigned char *)PyBytes_AS_STRING(body) + PyBytes_GET_SIZE(body);
    while (at < end)
        for (int i = 0; i < count; i++) {
            int added = add_row(readers[i], &at, end, lists[i]);
            if (added <= 0)
                return added;
        }
    return 1;
}

PyDoc_STRVAR(rows_doc, "rows(body, at) -> list[bytes] | None\n\nThe lines of the rows from `at` to the end.");

static PyObject *
Lines_rows(Lines *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected an event's body and a position");
        return NULL;
    }
    PyObject *lines = PyList_New(0);
    int read = lines == NULL ? -1 : read_all(&self, &lines, 1, args[0], args[1]);
    shrink(self);
    if (read == 1)
        return lines;
    Py_XDECREF(lines);
    if (read < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(pairs_doc,
             "pairs(new, body, at) -> tuple[list[bytes], list[bytes]] | None\n\n"
             "The lines of old rows and of new ones, which `new` reads (it may be the same), in turns.");

static PyObject *
Lines_pairs(Lines *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !Py_IS_TYPE(args[0], Py_TYPE(self))) {
        PyErr_SetString(PyExc_TypeError, "expected a reader, an event's body and a position");
        return NULL;
    }
    Lines *readers[] = {self, (Lines *)args[0]};
    PyObject *lists[] = {PyList_New(0), PyList_New(0)};
    int read = lists[0] == NULL || lists[1] == NULL ? -1 : read_all(readers, lists, 2, args[1], args[2]);
    shrink(readers[0]);
    shrink(readers[1]);
    PyObject *pair = read == 1 ? PyTuple_Pack(2, lists[0], lists[1]) : NULL;
    Py_XDECREF(lists[0]);
    Py_XDECREF(lists[1]);
    if (read == 0)
        Py_RETURN_NONE;
    return pair;
}

/* How many bytes a value takes that has a column's other numbers; -1 if there is no such column. */
static int
size_of(const Column *c)
{
    int fraction = c->more > 6 ? -1 : (c->more + 1) / 2;
    switch (c->kind) {
    case INTEGER:
    case LABELS:
        return c->size >= 1 && c->size <= 8 ? c->size : -1;
    case DECIMAL: {
        int size = 0;
        if (c->more + c->digits < 1 || c->more + c->digits > 65)
            return -1;
        size += c->digits / 9 * 4 + BYTES[c->digits % 9];
        return size + c->more / 9 * 4 + BYTES[c->more % 9];
    }
    case DOUBLE:
        return 8;
    case DATE:
        return 3;
    case DATETIME:
        return fraction < 0 ? -1 : 5 + fraction;
    case TIMESTAMP:
        return fraction < 0 ? -1 : 4 + fraction;
    case TIME:
        return fraction < 0 ? -1 : 3 + fraction;
    case YEAR:
        return 1;
    default: /* the length of what has one */
        return c->size >= 1 && c->size <= 4 ? c->size : -1;
    }
}

/* What stands for a column in Python: (present, wanted, kind, size, more, digits, object). */
static int
set_column(Column *c, PyObject *given)
{
    int present, wanted;
    const char *kind;
    PyObject *object;
    if (!PyTuple_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "expected a tuple for each column");
        return -1;
    }
    if (!PyArg_ParseTuple(given, "ppsiiiO", &present, &wanted, &kind, &c->size, &c->more, &c->digits, &object))
        return -1;
    c->present = (char)present;
    c->wanted = (char)wanted;
    size_t found = 0;
    while (found < Py_ARRAY_LENGTH(KINDS) && strcmp(kind, KINDS[found]) != 0)
        found++;
    c->kind = (Kind)found;
    if (found == Py_ARRAY_LENGTH(KINDS) || c->more < 0 || c->digits < 0 || c->size != size_of(c)
        || (found == LABELS && !PyTuple_Check(object))) {
        PyErr_SetString(PyExc_ValueError, "there is no such column");
        return -1;
    }
    c->object = Py_NewRef(object);
    return 0;
}

static PyObject *
Lines_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *columns;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs)) || !PyArg_ParseTuple(args, "O!", &PyTuple_Type, &columns)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "Lines takes no keyword arguments");
        return NULL;
    }
    Lines *self = (Lines *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->columns = PyMem_Calloc((size_t)PyTuple_GET_SIZE(columns) + 1, sizeof(Column));
    if (self->columns == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    Py_ssize_t present = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(columns); i++) {
        self->count = i + 1;
        if (set_column(&self->columns[i], PyTuple_GET_ITEM(columns, i)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
        present += self->columns[i].present;
    }
    self->octets = (present + 7) / 8;
    return (PyObject *)self;
}

static void
Lines_dealloc(Lines *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t i = 0; i < self->count; i++)
        Py_XDECREF(self->columns[i].object);
    PyMem_Free(self->columns);
    PyMem_Free(self->line);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef Lines_methods[] = {
    {"rows", (PyCFunction)(void (*)(void))Lines_rows, METH_FASTCALL, rows_doc},
    {"pairs", (PyCFunction)(void (*)(void))Lines_pairs, METH_FASTCALL, pairs_doc},
    {NULL},
};

PyDoc_STRVAR(Lines_doc,
             "Lines(columns)\n\n"
             "Makes lines of rows. A column is (present, wanted, kind, size, more, digits, object): see\n"
             "`Native` in pieces.py.");

static PyType_Slot Lines_slots[] = {
    {Py_tp_doc, (void *)Lines_doc},
    {Py_tp_new, Lines_new},
    {Py_tp_dealloc, Lines_dealloc},
    {Py_tp_methods, Lines_methods},
    {0, NULL},
};

static PyType_Spec Lines_spec = {
    .name = "cdc.sources.mysql._rows.Lines",
    .basicsize = sizeof(Lines),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Lines_slots,
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&Lines_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Lines", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_rows",
    .m_doc = "Rows of a binary log, read in C.",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__rows(void)
{
    return PyModuleDef_Init(&definition);
}
