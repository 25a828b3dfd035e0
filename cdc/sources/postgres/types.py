"""What a PostgreSQL server says of its types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliers.relation import Column
from cdc.sources.postgres.connection import Connection, translating
from cdc.sources.postgres.pgoutput import Field

FIRST_OWN_OID: Final = 16384
"""Below it, objects are the same on every server (access/transam.h, FirstNormalObjectId)."""

NOT_PORTABLE: Final = frozenset(
    "regproc regprocedure regoper regoperator regclass regcollation regtype regrole regnamespace"
    " regconfig regdictionary xml tsquery int2vector oidvector".split()
)
"""Built-in types whose binary form is an object's number, which differs between servers, or is
written for the client's encoding (xml_send), or which cannot read all that they send (tsqueryrecv
refuses the empty query, int2vectorrecv and oidvectorrecv the empty vector)."""

PORTABLE_EXTENSIONS: Final = frozenset(["citext", "hstore"])
"""Types of extensions whose binary form holds no object identifiers."""

_KINDS: Final = {"e": "enum", "c": "composite", "r": "range", "m": "multirange"}


@dataclass(frozen=True, slots=True)
class Type:
    """A row of pg_type, domains resolved: `name` is that of the base type."""

    name: str
    kind: str
    portable: bool


class TypeCatalog:
    """Types by oid; asks the server once for each."""

    def __init__(self) -> None:
        self._types: dict[int, Type] = {}
        self._formatted: dict[tuple[int, int], str] = {}

    def lacks(self, fields: Iterable[Field]) -> bool:
        """Whether `load` must be called before `columns`."""
        return any((f.type_oid, f.modifier) not in self._formatted for f in fields)

    def load(self, db: Connection, fields: Iterable[Field]) -> None:
        fields = list(fields)
        self._load(db, {f.type_oid for f in fields})
        self._format(db, {(f.type_oid, f.modifier) for f in fields})

    def columns(self, fields: Iterable[Field], nullable: Iterable[bool]) -> tuple[Column, ...]:
        """Columns for a relation's fields, which must be loaded. A type that is gone reads as text:
        `pgoutput` prints its values all the same."""
        return tuple(
            Column(
                name=f.name,
                type=self._formatted[f.type_oid, f.modifier],
                base=self._types[f.type_oid].name,
                kind=self._types[f.type_oid].kind,
                nullable=may_be_null,
                portable=self._types[f.type_oid].portable,
                folds=self._types[f.type_oid].name == "citext",
            )
            for f, may_be_null in zip(fields, nullable, strict=True)
        )

    def _format(self, db: Connection, wanted: set[tuple[int, int]]) -> None:
        missing = [w for w in wanted if w not in self._formatted]
        if not missing:
            return
        with translating():
            rows = db.execute(
                "SELECT t, m, CASE WHEN format_type(t, m) = '???' THEN 'text' ELSE format_type(t, m) END"
                " FROM unnest(%s::oid[], %s::int[]) AS w(t, m)",
                ([m[0] for m in missing], [m[1] for m in missing]),
            ).fetchall()
        self._formatted.update({(r[0], r[1]): r[2] for r in rows})

    def _load(self, db: Connection, oids: set[int]) -> None:
        missing = [o for o in oids if o not in self._types]
        if not missing:
            return
        with translating():
            rows = db.execute(
                "SELECT oid, typname, typtype, typbasetype, typelem, typsend <> 0 AND typreceive <> 0,"
                # Not int2vector and oidvector, which are printed without braces.
                " typelem <> 0 AND typinput = 'array_in'::regproc"
                " FROM pg_type WHERE oid = ANY(%s)",
                (missing,),
            ).fetchall()
        self._load(db, {r[3] for r in rows if r[2] == "d"} | {r[4] for r in rows if r[6]})
        for oid, name, typtype, base, element, has_binary, is_array in rows:
            self._types[oid] = self._type(oid, name, typtype, base, element, has_binary, is_array)
        for oid in missing:
            self._types.setdefault(oid, Type("text", "base", portable=False))

    def _type(
        self,
        oid: int,
        name: str,
        typtype: str,
        base: int,
        element: int,
        has_binary: bool,
        is_array: bool,
    ) -> Type:
        if typtype == "d":
            return self._types[base]
        if is_array:
            of = self._types[element]
            # An array of a domain over arrays is an array of nothing that another server may have.
            named = name if of.kind == "array" else of.name
            return Type(named, "array", portable=of.portable and oid < FIRST_OWN_OID)
        own = oid >= FIRST_OWN_OID
        portable = has_binary and name not in NOT_PORTABLE
        if own:
            portable = typtype == "e" or name in PORTABLE_EXTENSIONS
        return Type(name, _KINDS.get(typtype, "base"), portable)
