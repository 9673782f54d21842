"""A stand-in for a MongoDB server: its wire protocol (OP_MSG), and the few commands of the `mongo` store, in memory.

It is not MongoDB: what this shows is that the store and the real driver say what they mean to, also from several
processes. What a server makes of it is tested where `COMPUTERAGENT_TEST_MONGO_URL` names one. A document of more than
16 MB is refused, an unknown command, operator or option is an error.

Run as a program, it prints its port and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import bson

Document = dict[str, Any]
_LARGEST = 16 * 1024 * 1024
_HELLO = {
    "isWritablePrimary": True,
    "helloOk": True,
    "maxBsonObjectSize": _LARGEST,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "readOnly": False,
    "ok": 1.0,
}
_ENVELOPE = {"$db", "lsid", "$readPreference", "$clusterTime", "ordered", "writeConcern", "singleBatch"}
_COMPARE = {
    "$gt": lambda value, other: value > other,
    "$gte": lambda value, other: value >= other,
    "$lt": lambda value, other: value < other,
    "$lte": lambda value, other: value <= other,
    "$ne": lambda value, other: value != other,
}
_MISSING = object()


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.answer = {"ok": 0.0, "code": code, "errmsg": message}


class Server:
    """The collections, by database and name."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[Any, Document]] = {}
        self.cursors: dict[int, list[Document]] = {}

    def answer(self, command: Document) -> Document:
        name = next(iter(command))
        method = getattr(self, f"on_{name.lower()}", None)
        if method is None:
            raise Refused(59, f"no such command: {name}")
        rest = {
            key: value for key, value in command.items() if key not in _ENVELOPE and key != name and value is not None
        }
        return {"ok": 1.0, **method(command["$db"], command[name], **rest)}

    def on_hello(self, _database: str, _value: Any, **_rest: Any) -> Document:
        return _HELLO

    on_ismaster = on_hello

    def on_ping(self, _database: str, _value: Any) -> Document:
        return {}

    def on_endsessions(self, _database: str, _value: Any) -> Document:
        return {}

    def on_createindexes(self, _database: str, _name: str, indexes: list[Document]) -> Document:
        if any(index.get("unique") for index in indexes):
            raise Refused(72, "this stand-in has no unique indexes but that of _id")
        return {}

    def on_dropdatabase(self, database: str, _value: Any) -> Document:
        self.kept = {where: documents for where, documents in self.kept.items() if where[0] != database}
        return {}

    def on_insert(self, database: str, name: str, documents: list[Document]) -> Document:
        kept, errors = self.kept.setdefault((database, name), {}), []
        for index, document in enumerate(documents):
            if document["_id"] in kept:
                errors.append({"index": index, "code": 11000, "errmsg": "E11000 duplicate key error"})
                break
            if len(bson.encode(document)) > _LARGEST:
                raise Refused(10334, "BSONObj size is invalid")
            kept[document["_id"]] = document
        return {"n": len(documents) - len(errors), **({"writeErrors": errors} if errors else {})}

    def on_find(
        self, database: str, name: str, *, sort: Document | None = None, limit: int = 0, **query: Any
    ) -> Document:
        _only(query, {"filter"})
        found = [each for each in self.kept.get((database, name), {}).values() if _matches(each, query["filter"])]
        for field, direction in reversed((sort or {}).items()):
            found.sort(key=lambda each: each[field], reverse=direction < 0)
        found = found[: limit or None]
        return {"cursor": self._page(f"{database}.{name}", "firstBatch", found)}

    def on_getmore(self, database: str, cursor: int, collection: str) -> Document:
        return {"cursor": self._page(f"{database}.{collection}", "nextBatch", self.cursors.pop(cursor))}

    def on_killcursors(self, _database: str, _name: str, cursors: list[int]) -> Document:
        for cursor in cursors:
            self.cursors.pop(cursor, None)
        return {"cursorsKilled": cursors}

    def _page(self, namespace: str, key: str, found: list[Document]) -> Document:
        page: list[Document] = []
        size = 0
        while found and len(page) < 101 and (not page or size < _LARGEST):
            page.append(found.pop(0))
            size += len(bson.encode(page[-1]))
        cursor = max(self.cursors, default=0) + 1 if found else 0
        if found:
            self.cursors[cursor] = found
        return {"id": bson.Int64(cursor), "ns": namespace, key: page}

    def on_update(self, database: str, name: str, updates: list[Document]) -> Document:
        kept, count, upserted = self.kept.setdefault((database, name), {}), 0, []
        for index, update in enumerate(updates):
            _only(update, {"q", "u", "multi", "upsert"})
            found = [each for each in kept.values() if _matches(each, update["q"])]
            found = found if update.get("multi") else found[:1]
            for each in found:
                _change(each, update["u"], inserting=False)
            if not found and update.get("upsert"):
                made = {key: value for key, value in update["q"].items() if not isinstance(value, dict)}
                _change(made, update["u"], inserting=True)
                kept[made["_id"]] = made
                upserted.append({"index": index, "_id": made["_id"]})
            count += len(found) or len(upserted)
        return {"n": count, "nModified": count, **({"upserted": upserted} if upserted else {})}

    def on_delete(self, database: str, name: str, deletes: list[Document]) -> Document:
        kept, count = self.kept.get((database, name), {}), 0
        for delete in deletes:
            _only(delete, {"q", "limit"})
            found = [key for key, each in kept.items() if _matches(each, delete["q"])]
            for key in found[: delete["limit"] or None]:
                del kept[key]
                count += 1
        return {"n": count}


def _only(given: Document, known: set[str]) -> None:
    if unknown := set(given) - known:
        raise Refused(40415, f"this stand-in knows no {sorted(unknown)}")


def _matches(document: Document, query: Document) -> bool:
    for field, wanted in query.items():
        value = document.get(field, _MISSING)
        if not isinstance(wanted, dict):
            if value != wanted:
                return False
            continue
        _only(wanted, set(_COMPARE))
        for operator, other in wanted.items():
            if value is _MISSING or not _COMPARE[operator](value, other):
                return False
    return True


def _change(document: Document, change: Document, *, inserting: bool) -> None:
    _only(change, {"$set", "$setOnInsert", "$max"})
    document.update(change.get("$set", {}))
    if inserting:
        document.update(change.get("$setOnInsert", {}))
    for field, value in change.get("$max", {}).items():
        document[field] = max(document.get(field, value), value)


async def _serve(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            length, request, _, operation = struct.unpack("<iiii", await reader.readexactly(16))
            body = await reader.readexactly(length - 16)
            if operation == 2004:  # the first hello of a connection, as OP_QUERY
                start = body.index(b"\0", 4) + 9
                answer = {"ok": 1.0, **server.on_hello("admin", 1)} if bson.decode(body[start:]) else {}
                payload, kind = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(answer), 1
            else:
                try:
                    answer = server.answer(_command(body))
                except Refused as refused:
                    answer = refused.answer
                payload, kind = struct.pack("<IB", 0, 0) + bson.encode(answer), 2013
            writer.write(struct.pack("<iiii", 16 + len(payload), 0, request, kind) + payload)
            await writer.drain()
    writer.close()


def _command(body: bytes) -> Document:
    """The command of an OP_MSG: its one document, and its sequences of documents as lists."""
    command: Document = {}
    position = 4
    while position < len(body):
        kind = body[position]
        (size,) = struct.unpack_from("<i", body, position + 1)
        section = body[position + 1 : position + 1 + size]
        if kind == 0:
            command = bson.decode(section) | command
        else:
            name, _, documents = section[4:].partition(b"\0")
            command[name.decode()] = bson.decode_all(documents)
        position += 1 + size
    return command


async def _main() -> None:
    server = Server()
    listening = await asyncio.start_server(lambda r, w: _serve(server, r, w), "127.0.0.1", 0, limit=2**20)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
