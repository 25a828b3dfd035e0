/* `Messages.take` of messages.py, in C: the same messages give the same deltas.

   What is frequent is done here: an insert, an update that carries no old row, Begin and Commit
   (PostgreSQL manual, "Logical Replication Message Formats"). Everything else, and whatever is not as
   long as it has to be, goes to `messages.other`, which refuses what is damaged. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define HEADER 25        /* of XLogData: kind, start, end, send time */
#define TUPLE 31         /* where a new row's TupleData begins: header, kind, oid, 'N' */
#define BEGIN_SIZE 46    /* header, kind, end, time, xid */
#define COMMIT_SIZE 51   /* header, kind, flags, position, end, time */

typedef struct {
    PyObject *messages;
    PyObject *relations, *deltas, *commit, *inserts, *update;
    PyObject *run_type, *delta_type, *commit_type;
    Py_ssize_t ordinal, size, in_runs;
    int inside;
    unsigned char oid[4];
    PyObject *relation; /* of `oid`; NULL if none was looked for */
    PyObject *rows;     /* of the run that is the last change; NULL if none is */
    PyObject *last;
    char ended[COMMIT_SIZE];
    int has_ended;
    Py_ssize_t whole, whole_size;
    PyObject *idle;
} Taking;

static int
makes_tuples(PyObject *type)
{
    return PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)type, &PyTuple_Type);
}

static int
load(Taking *t, PyObject *messages)
{
    struct { const char *name; PyObject **to; } objects[] = {
        {"relations", &t->relations}, {"deltas", &t->deltas}, {"commit", &t->commit},
        {"inserts", &t->inserts}, {"update", &t->update}, {"run_type", &t->run_type},
        {"delta_type", &t->delta_type}, {"commit_type", &t->commit_type},
    };
    struct { const char *name; Py_ssize_t *to; } numbers[] = {
        {"ordinal", &t->ordinal}, {"size", &t->size}, {"in_runs", &t->in_runs},
    };
    t->messages = messages;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(objects); i++)
        if ((*objects[i].to = PyObject_GetAttrString(messages, objects[i].name)) == NULL)
            return -1;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(numbers); i++) {
        PyObject *n = PyObject_GetAttrString(messages, numbers[i].name);
        if (n == NULL)
            return -1;
        *numbers[i].to = PyLong_AsSsize_t(n);
        Py_DECREF(n);
        if (*numbers[i].to == -1 && PyErr_Occurred())
            return -1;
    }
    PyObject *inside = PyObject_GetAttrString(messages, "inside");
    if (inside == NULL)
        return -1;
    t->inside = PyObject_IsTrue(inside);
    Py_DECREF(inside);
    if (!PyDict_Check(t->relations) || !PyList_Check(t->deltas) || !makes_tuples(t->run_type)
        || !makes_tuples(t->delta_type) || !makes_tuples(t->commit_type)) {
        PyErr_SetString(PyExc_TypeError, "expected a dict, a list and three types of tuples");
        return -1;
    }
    t->last = Py_NewRef(t->commit);
    return t->inside;
}

static int
set(PyObject *messages, const char *name, PyObject *value)
{
    int failed = value == NULL || PyObject_SetAttrString(messages, name, value) < 0;
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

static int
store(Taking *t)
{
    if (set(t->messages, "commit", Py_NewRef(t->commit)) < 0
        || set(t->messages, "ordinal", PyLong_FromSsize_t(t->ordinal)) < 0
        || set(t->messages, "size", PyLong_FromSsize_t(t->size)) < 0
        || set(t->messages, "in_runs", PyLong_FromSsize_t(t->in_runs)) < 0)
        return -1;
    return set(t->messages, "inside", PyBool_FromLong(t->inside));
}

static void
clear(Taking *t)
{
    PyObject **all[] = {&t->relations, &t->deltas, &t->commit, &t->inserts, &t->update,
                        &t->run_type, &t->delta_type, &t->commit_type, &t->relation, &t->rows, &t->last, &t->idle};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(all); i++)
        Py_CLEAR(*all[i]);
}

/* Appends (op, relation, before, after, commit, ordinal), a tuple of this type. */
static int
append(Taking *t, PyObject *type, PyObject *op, PyObject *relation, PyObject *before, PyObject *after)
{
    PyObject *ordinal = PyLong_FromSsize_t(t->ordinal);
    PyObject *delta = ordinal == NULL ? NULL : ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 6);
    if (delta == NULL) {
        Py_XDECREF(ordinal);
        return -1;
    }
    PyObject *fields[] = {op, relation, before, after, t->commit};
    for (int i = 0; i < 5; i++)
        PyTuple_SET_ITEM(delta, i, Py_NewRef(fields[i]));
    PyTuple_SET_ITEM(delta, 5, ordinal);
    int failed = PyList_Append(t->deltas, delta);
    Py_DECREF(delta);
    return failed;
}

/* Makes `relation` the one with this oid. KeyError if there is none. */
static int
relate(Taking *t, const unsigned char *oid)
{
    if (t->relation != NULL && memcmp(t->oid, oid, 4) == 0)
        return 0;
    PyObject *key = PyBytes_FromStringAndSize((const char *)oid, 4);
    if (key == NULL)
        return -1;
    PyObject *found = PyDict_GetItemWithError(t->relations, key);
    if (found == NULL && !PyErr_Occurred())
        PyErr_SetObject(PyExc_KeyError, key);
    Py_DECREF(key);
    if (found == NULL)
        return -1;
    Py_XSETREF(t->relation, Py_NewRef(found));
    memcpy(t->oid, oid, 4);
    return 0;
}

static int
take_insert(Taking *t, const unsigned char *p, Py_ssize_t size)
{
    PyObject *image = PyBytes_FromStringAndSize((const char *)p + TUPLE, size - TUPLE);
    if (image == NULL)
        return -1;
    t->ordinal++;
    if (t->rows != NULL && memcmp(t->oid, p + HEADER + 1, 4) == 0) {
        int failed = PyList_Append(t->rows, image);
        Py_DECREF(image);
        t->in_runs++;
        return failed;
    }
    PyObject *rows = PyList_New(1);
    if (rows == NULL || relate(t, p + HEADER + 1) < 0) {
        Py_XDECREF(rows);
        Py_DECREF(image);
        return -1;
    }
    PyList_SET_ITEM(rows, 0, image);
    Py_XSETREF(t->rows, rows);
    return append(t, t->run_type, t->inserts, t->relation, Py_None, rows);
}

static int
take_begin(Taking *t, const unsigned char *p)
{
    /* A LogCommit is (message, start), and read when somebody asks. */
    PyTypeObject *type = (PyTypeObject *)t->commit_type;
    PyObject *message = PyBytes_FromStringAndSize((const char *)p + HEADER + 1, BEGIN_SIZE - HEADER - 1);
    PyObject *start = PyLong_FromLong(0);
    PyObject *commit = message == NULL || start == NULL ? NULL : type->tp_alloc(type, 2);
    if (commit == NULL) {
        Py_XDECREF(message);
        Py_XDECREF(start);
        return -1;
    }
    PyTuple_SET_ITEM(commit, 0, message);
    PyTuple_SET_ITEM(commit, 1, start);
    Py_SETREF(t->commit, commit);
    t->ordinal = 0;
    t->inside = 1;
    return 0;
}

static int
take_other(Taking *t, const unsigned char *p, Py_ssize_t size)
{
    PyObject *found = PyObject_CallMethod(t->messages, "other", "iy#", p[HEADER], p, size);
    PyObject *changes = found == NULL ? NULL : PySequence_Fast(found, "expected a sequence of changes");
    Py_XDECREF(found);
    if (changes == NULL)
        return -1;
    /* A Relation message may have made another relation of the same oid. */
    Py_CLEAR(t->relation);
    int failed = 0;
    for (Py_ssize_t i = 0; !failed && i < PySequence_Fast_GET_SIZE(changes); i++) {
        PyObject *c = PySequence_Fast_GET_ITEM(changes, i);
        if (!PyTuple_Check(c) || PyTuple_GET_SIZE(c) != 4) {
            PyErr_SetString(PyExc_TypeError, "expected (op, relation, before, after)");
            failed = -1;
            break;
        }
        t->ordinal++;
        failed = append(t, t->delta_type, PyTuple_GET_ITEM(c, 0), PyTuple_GET_ITEM(c, 1),
                        PyTuple_GET_ITEM(c, 2), PyTuple_GET_ITEM(c, 3));
    }
    Py_DECREF(changes);
    return failed;
}

static int
take_keepalive(Taking *t, const unsigned char *p, Py_ssize_t size)
{
    PyObject *idle = PyObject_CallMethod(t->messages, "keepalive", "y#O", p, size,
                                         t->inside ? Py_True : Py_False);
    int says = idle == NULL ? -1 : PyObject_IsTrue(idle);
    if (says > 0)
        Py_XSETREF(t->idle, Py_NewRef(idle));
    Py_XDECREF(idle);
    return says < 0 ? -1 : 0;
}

static int
take_message(Taking *t, const unsigned char *p, Py_ssize_t size)
{
    if (p[0] != 'w')
        return take_keepalive(t, p, size);
    if (size <= HEADER) {
        PyErr_SetString(PyExc_IndexError, "message cut short");
        return -1;
    }
    int has_tuple = size >= TUPLE && p[TUPLE - 1] == 'N';
    if (p[HEADER] == 'I' && has_tuple)
        return take_insert(t, p, size);
    Py_CLEAR(t->rows);
    if (p[HEADER] == 'U' && has_tuple) {
        t->ordinal++;
        if (relate(t, p + HEADER + 1) < 0)
            return -1;
        PyObject *image = PyBytes_FromStringAndSize((const char *)p + TUPLE, size - TUPLE);
        if (image == NULL)
            return -1;
        int failed = append(t, t->delta_type, t->update, t->relation, Py_None, image);
        Py_DECREF(image);
        return failed;
    }
    if (p[HEADER] == 'B' && size == BEGIN_SIZE)
        return take_begin(t, p);
    if (p[HEADER] == 'C' && size == COMMIT_SIZE && t->inside) {
        memcpy(t->ended, p, COMMIT_SIZE);
        t->has_ended = 1;
        t->inside = 0;
        Py_SETREF(t->last, Py_NewRef(t->commit));
        t->whole = PyList_GET_SIZE(t->deltas);
        t->whole_size = t->size;
        return 0;
    }
    return take_other(t, p, size);
}

/* Takes over a message of libpq's. Its length, or -3 with an error set. */
static Py_ssize_t
take_counted(Taking *t, const void *message, Py_ssize_t size, Py_ssize_t length)
{
    t->size += length;
    if (size == 0) {
        PyErr_SetString(PyExc_IndexError, "message cut short");
        return -3;
    }
    return take_message(t, message, size) < 0 ? -3 : length;
}

/* PQgetCopyData and PQfreemem of libpq-fe.h, and what the first is called for. */
typedef struct {
    int (*get)(void *connection, char **buffer, int async);
    void (*free)(void *buffer);
    void *connection;
} Libpq;

/* The same from their addresses, three ints. -1 with an error set. */
static int
find_libpq(Libpq *libpq, PyObject *addresses)
{
    void *found[3];
    for (int i = 0; i < 3; i++) {
        PyObject *n = PyTuple_GET_SIZE(addresses) == 3 ? PyTuple_GET_ITEM(addresses, i) : Py_None;
        if (!PyLong_Check(n) || (found[i] = PyLong_AsVoidPtr(n)) == NULL) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "expected three addresses");
            return -1;
        }
    }
    memcpy(&libpq->get, &found[0], sizeof(void *));
    memcpy(&libpq->free, &found[1], sizeof(void *));
    libpq->connection = found[2];
    return 0;
}

/* Takes one message from libpq: its length, 0 or less if there is none, -3 with an error set. With
   `async` libpq only looks into what it has buffered: the interpreter need not be let go. */
static Py_ssize_t
take_direct(Taking *t, const Libpq *libpq)
{
    char *message = NULL;
    Py_ssize_t length = libpq->get(libpq->connection, &message, 1);
    if (length <= 0)
        return length;
    length = take_counted(t, message, length, length);
    libpq->free(message);
    return length;
}

/* The same from psycopg's `get_copy_data`. */
static Py_ssize_t
take_next(Taking *t, PyObject *get, PyObject *one)
{
    PyObject *got = PyObject_CallOneArg(get, one);
    if (got == NULL)
        return -3;
    Py_buffer message = {0};
    Py_ssize_t length = -3;
    if (!PyTuple_Check(got) || PyTuple_GET_SIZE(got) != 2)
        PyErr_SetString(PyExc_TypeError, "expected a length and a message");
    else
        length = PyLong_AsSsize_t(PyTuple_GET_ITEM(got, 0));
    if (PyErr_Occurred())
        length = -3;
    if (length > 0) {
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(got, 1), &message, PyBUF_SIMPLE) < 0)
            length = -3;
        else {
            length = take_counted(t, message.buf, message.len, length);
            PyBuffer_Release(&message);
        }
    }
    Py_DECREF(got);
    return length;
}

PyDoc_STRVAR(take_doc,
             "take(messages, get) -> (length, ended, last, whole, whole_size, idle)\n\n"
             "See `Messages.take` and `Taken`. `get` may also be the addresses of PQgetCopyData,\n"
             "PQfreemem and a PGconn: without an object made for each message.");

static PyObject *
take(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected messages and what gets the next");
        return NULL;
    }
    Taking t = {0};
    PyObject *one = PyLong_FromLong(1), *result = NULL;
    Py_ssize_t length = -3;
    Libpq libpq = {0};
    int direct = PyTuple_Check(args[1]);
    if (one != NULL && (!direct || find_libpq(&libpq, args[1]) == 0) && load(&t, args[0]) >= 0)
        while ((length = direct ? take_direct(&t, &libpq) : take_next(&t, args[1], one)) > 0)
            ;
    if (length > -3 && store(&t) == 0) {
        PyObject *ended = t.has_ended ? PyBytes_FromStringAndSize(t.ended, COMMIT_SIZE) : Py_NewRef(Py_None);
        if (ended != NULL)
            result = Py_BuildValue("nNOnnO", length, ended, t.last, t.whole, t.whole_size,
                                   t.idle == NULL ? Py_None : t.idle);
    }
    clear(&t);
    Py_XDECREF(one);
    return result;
}

static PyMethodDef functions[] = {
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, take_doc},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_messages",
    .m_doc = "A walsender's messages, taken in C.",
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__messages(void)
{
    return PyModuleDef_Init(&definition);
}
