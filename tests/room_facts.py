"""Who writes which table and who calls which function, read from the SQL sources by PostgreSQL's parser.

Names suffice: sources carry no schema names, and functions of one name belong to one room. room_rules.py says
what may be.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from pglast.parser import ParseError, parse_plpgsql_json, parse_sql_json

# Stands for what an EXECUTE puts in from a variable; as a target it may be any table or function.
UNKNOWN = "unknown"
PLACEHOLDER = "_rooms_unknown_"
# Statements that name the table they change in one field.
WRITES = {
    "InsertStmt": ("INSERT", "relation"),
    "UpdateStmt": ("UPDATE", "relation"),
    "DeleteStmt": ("DELETE", "relation"),
    "MergeStmt": ("MERGE", "relation"),
    "AlterTableStmt": ("ALTER TABLE", "relation"),
    "IndexStmt": ("CREATE INDEX", "relation"),
    "RuleStmt": ("CREATE RULE", "relation"),
    "CreatePolicyStmt": ("CREATE POLICY", "table"),
}
# Parts of PL/pgSQL's tree whose query is text that is run, and how its parser says what a text is.
DYNAMIC = ("PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors")
STATEMENT, ASSIGNMENT = 0, 3
WRITING_WORDS = re.compile(
    r"\b(INSERT INTO|UPDATE|DELETE FROM|MERGE INTO|TRUNCATE|COPY|ALTER TABLE)\s+(?:ONLY\s+|TABLE\s+)?(\w+)",
    re.IGNORECASE,
)
# pg_trigger's bits.
BEFORE, INSTEAD = 2, 64
EVENTS = {"INSERT": 4, "DELETE": 8, "UPDATE": 16}
# What a BEFORE trigger may return without changing what is written.
PLAIN_ROWS = re.compile(r"new|old|coalesce\((new, old|old, new)\)")


class SourceError(Exception):
    """A source cannot be read; the message names the place."""


@dataclass(frozen=True, order=True)
class Fact:
    """Something in a source acts on a relation or calls a function."""

    file: str
    line: int
    room: str
    actor: str
    kind: str  # write, read, lock, cascade or call
    target: str
    how: str

    @property
    def key(self) -> str:
        """Under this name tests/rooms.toml excepts it."""
        return f"{self.actor} -> {self.target}"


@dataclass(frozen=True)
class Trigger:
    """A trigger, whose function may belong to another room than its relation."""

    file: str
    line: int
    room: str
    name: str
    relation: str
    function: str
    timing: int
    events: int
    each_row: bool


@dataclass
class Sources:
    """What the sources define, and every fact found in them, names as written."""

    files: dict[str, list[str]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    relations: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    views: dict[str, list[str]] = field(default_factory=dict)
    triggers: list[Trigger] = field(default_factory=list)
    row_changers: set[str] = field(default_factory=set)
    facts: set[Fact] = field(default_factory=set)


def names(node: Any) -> str:
    """The last part of a qualified name."""
    return str(node[-1]["String"]["sval"])


def nodes(tree: Any, kind: str) -> Iterator[Any]:
    """Every node of that kind in a tree."""
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(value, kind)
    if isinstance(tree, dict) and kind in tree:
        yield tree[kind]


def dynamic_text(node: Any) -> str:
    """The statement that an EXECUTE would run, with PLACEHOLDER for what is not known before."""
    (kind, value), *_ = node.items()
    if kind == "A_Const" and "sval" in value:
        return str(value["sval"].get("sval", ""))
    if kind == "A_Const" and "ival" in value:
        return str(value["ival"].get("ival", 0))
    if kind == "TypeCast":
        return dynamic_text(value["arg"])
    if kind == "A_Expr" and names(value["name"]) == "||":
        return dynamic_text(value["lexpr"]) + dynamic_text(value["rexpr"])
    if kind == "FuncCall" and names(value["funcname"]) == "format" and "args" in value:
        pattern, *arguments = map(dynamic_text, value["args"])
        left = iter(arguments)

        def filled(match: re.Match[str]) -> str:
            if match["type"] == "%":
                return "%"
            position = match["position"]
            text = arguments[int(position) - 1] if position else next(left, PLACEHOLDER)
            return "'" + text.replace("'", "''") + "'" if match["type"] == "L" else text

        return re.sub(r"%(?:(?P<position>\d+)\$)?(?P<type>[sIL%])", filled, pattern)
    return PLACEHOLDER


class Reader:
    """Reads one file: takes down the facts of one actor at a time."""

    def __init__(self, sources: Sources, root: Path, path: Path) -> None:
        self.sources = sources
        self.root = root
        self.file = str(path)
        self.room = "/".join(path.parts[1:-1])
        self.text = (root / path).read_text()
        self.actor = self.file
        # The statement at hand, and its body if that is PL/pgSQL.
        self.statement = ""
        self.content = ""

    def read(self) -> None:
        """Take down everything in the file."""
        self.sources.files.setdefault(self.room, []).append(self.file)
        comment = re.match(r"(?:--.*\n)*", self.text)
        self.sources.heads[self.file] = " ".join(re.findall(r"-- (.*)", comment[0] if comment else ""))
        content = self.text.encode()
        for raw in self.parse(self.text, 1):
            self.actor = self.file
            start = raw.get("stmt_location", 0)
            self.statement = content[start : start + raw.get("stmt_len", len(content))].decode()
            (kind, statement), *_ = raw["stmt"].items()
            self.define(kind, statement)
            self.walk(raw["stmt"], content, 1)

    def parse(self, query: str, line: int) -> list[dict[str, Any]]:
        """The statements of a text."""
        try:
            return list(json.loads(parse_sql_json(query)).get("stmts", []))
        except ParseError as error:
            raise SourceError(f"{self.file}:{line}: {self.actor}: {error}") from error

    def note(self, kind: str, target: str, how: str, line: int) -> None:
        """Take down one fact. What EXECUTE writes or calls by a variable may be any table."""
        if PLACEHOLDER in target:
            if kind not in ("write", "call"):
                return
            kind, target = "write", UNKNOWN
        self.sources.facts.add(Fact(self.file, line, self.room, self.actor, kind, target, how))

    def define(self, kind: str, statement: Any) -> None:
        """Take down what a statement of the file makes; what it contains is the doing of the new object."""
        if kind in ("CreateStmt", "ViewStmt", "CreateTableAsStmt"):
            relation = statement.get("relation") or statement.get("view") or statement["into"]["rel"]
            self.actor = relation["relname"]
            self.own(self.sources.relations)
            if kind == "ViewStmt":
                query = statement["query"]["SelectStmt"].get("fromClause", [])
                self.sources.views[self.actor] = [r["relname"] for r in nodes(query, "RangeVar")]
        elif kind == "CreateFunctionStmt":
            self.actor = names(statement["funcname"])
            self.own(self.sources.functions)
        elif kind == "CreateTrigStmt":
            self.actor = statement["trigname"]
            line = self.line(self.text.encode(), statement["relation"]["location"], 1)
            function = names(statement["funcname"])
            self.sources.triggers.append(
                Trigger(
                    *(self.file, line, self.room, self.actor, statement["relation"]["relname"], function),
                    *(statement.get("timing", 0), statement["events"], statement.get("row", False)),
                )
            )
            self.note("call", function, "trigger", line)

    def own(self, owners: dict[str, str]) -> None:
        """Take down that the actor is of this room."""
        home = owners.setdefault(self.actor, self.room)
        if home != self.room:
            raise SourceError(f"{self.file}: {self.actor} is of room {home} already")

    @staticmethod
    def line(query: bytes, location: int, first: int) -> int:
        """The line of the file at an offset of a query that starts in line first."""
        return first + query[:location].count(b"\n")

    def walk(self, tree: Any, query: bytes, first: int, via: str = "") -> None:
        """Take down the facts of a parse tree; via says what runs it if it is no plain statement."""
        with_queries = {cte["ctename"] for cte in nodes(tree, "CommonTableExpr")}

        def target(relation: Any, kind: str, how: str) -> None:
            line = self.line(query, relation.get("location", 0), first)
            self.note(kind, relation["relname"], f"{via} {how}".strip(), line)

        def visit(node: Any) -> None:
            for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
                visit(child)
            for kind, value in node.items() if isinstance(node, dict) else ():
                if kind in WRITES:
                    how, name = WRITES[kind]
                    target(value[name], "write", how)
                elif kind == "TruncateStmt":
                    for relation in nodes(value["relations"], "RangeVar"):
                        target(relation, "write", "TRUNCATE")
                elif kind == "CopyStmt" and value.get("is_from"):
                    target(value["relation"], "write", "COPY")
                elif kind == "DropStmt" and value["removeType"] in ("OBJECT_TABLE", "OBJECT_VIEW"):
                    for dropped in value["objects"]:
                        target({"relname": names(dropped["List"]["items"])}, "write", "DROP")
                elif kind == "intoClause":
                    target(value["rel"], "write", "SELECT INTO")
                elif kind == "RangeVar" and value["relname"] not in with_queries:
                    target(value, "read", "read")
                elif kind == "SelectStmt" and "lockingClause" in value:
                    self.locks(value, query, first)
                elif kind in ("FuncCall", "funccall"):
                    self.note(
                        *("call", names(value["funcname"]), via or "call"),
                        self.line(query, value.get("location", 0), first),
                    )
                elif kind == "Constraint" and value.get("fk_del_action") in ("c", "n", "d"):
                    target(value["pktable"], "cascade", "ON DELETE")
                elif kind in ("CreateFunctionStmt", "DoStmt"):
                    self.body(value, query)

        visit(tree)

    def locks(self, select: Any, query: bytes, first: int) -> None:
        """Rows that a SELECT … FOR UPDATE locks."""
        relations = list(nodes(select.get("fromClause", []), "RangeVar"))
        known = {r.get("alias", {}).get("aliasname", r["relname"]): r for r in relations}
        for clause in nodes(select["lockingClause"], "LockingClause"):
            chosen = [known.get(r["relname"]) for r in nodes(clause.get("lockedRels", []), "RangeVar")]
            for relation in chosen or relations:
                if relation is not None:
                    line = self.line(query, relation.get("location", 0), first)
                    self.note("lock", relation["relname"], "FOR UPDATE", line)

    def body(self, statement: Any, query: bytes) -> None:
        """The body of a function or DO block that is a string."""
        definition = statement.get("options") or statement.get("args") or []
        options = {option["DefElem"]["defname"]: option["DefElem"] for option in definition}
        if "as" not in options:
            return
        (text,) = [part["sval"] for part in nodes(options["as"]["arg"], "String")]
        first = self.line(query, options["as"]["location"], 1)
        language = options["language"]["arg"]["String"]["sval"] if "language" in options else "plpgsql"
        if language == "sql":
            for raw in self.parse(text, first):
                self.walk(raw["stmt"], text.encode(), first)
        elif language == "plpgsql":
            self.content = text
            self.plpgsql(self.plpgsql_tree(first), first, first)
        else:
            self.python(re.sub(r"@@include (\S+)@@", lambda m: (self.root / m[1]).read_text(), text), first)

    def python(self, text: str, first: int) -> None:
        """Queries of a PL/Python body."""
        for node in ast.walk(ast.parse("def body():\n" + indent(text, " "))):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"plpy\.(execute|prepare|cursor)", ast.unparse(node.func)
            ):
                query = node.args[0]
                self.run(str(query.value) if isinstance(query, ast.Constant) else PLACEHOLDER, first)

    def run(self, text: str, line: int) -> None:
        """A statement that is put together when it is run."""
        try:
            trees = [raw["stmt"] for raw in json.loads(parse_sql_json(text)).get("stmts", [])]
        except ParseError:  # too much of it is not known before
            self.note("write", UNKNOWN, "EXECUTE", line)
            for match in WRITING_WORDS.finditer(text):
                self.note("write", match[2].lower(), f"EXECUTE {match[1].upper()}", line)
            return
        for tree in trees:
            # Offsets mean nothing in a text that is not in the file.
            self.walk(tree, b"", line, "EXECUTE")

    def plpgsql_tree(self, first: int) -> Any:
        """PL/pgSQL's own tree of the statement at hand."""
        # It keeps no default value of a record, but that of a plain value.
        text = re.sub(r"\brecord(?=\s*(:?=|DEFAULT\b))", "text", self.statement, flags=re.IGNORECASE)
        while True:
            try:
                return json.loads(parse_plpgsql_json(text))
            except ParseError as error:
                # The parser knows no table's row type, so it takes a variable of one for a plain value.
                field = re.search(r'"((\w+)\.\w+)" is not a known variable', str(error))
                name = re.escape(field[1]) if field else "$^"
                text, count = re.subn(rf"\b{name}\b", field[2] if field else "", text, flags=re.IGNORECASE)
                if not count:
                    raise SourceError(f"{self.file}:{first}: {self.actor}: {error}") from error

    def plpgsql(self, node: Any, first: int, line: int) -> None:
        """Every query and expression below a node of PL/pgSQL's tree; its statement begins in that line."""
        if isinstance(node, list):
            for child in node:
                self.plpgsql(child, first, line)
        for kind, value in node.items() if isinstance(node, dict) else ():
            if isinstance(value, dict) and "lineno" in value:
                line = first + value["lineno"] - 1
            if kind == "PLpgSQL_expr":
                self.expression(value, first, line)
            elif kind == "dynquery" or (kind in DYNAMIC and "query" in value):
                query = value if kind == "dynquery" else value["query"]
                (tree,) = self.parse("SELECT " + query["PLpgSQL_expr"]["query"], line)
                (column,) = tree["stmt"]["SelectStmt"]["targetList"]
                self.run(dynamic_text(column["ResTarget"]["val"]), line)
            elif kind == "PLpgSQL_stmt_return" and "expr" in value:
                row = " ".join(value["expr"]["PLpgSQL_expr"]["query"].lower().split())
                if not PLAIN_ROWS.fullmatch(row):
                    self.sources.row_changers.add(self.actor)
            elif kind == "target" and re.search(r'name": "new\b', json.dumps(value)):
                self.sources.row_changers.add(self.actor)
            self.plpgsql(value, first, line)

    def expression(self, value: Any, first: int, line: int) -> None:
        """One query or expression of a PL/pgSQL body, whose statement begins in that line."""
        query = value["query"]
        before = self.content.split("\n")[line - first :]
        start = "\n".join(before).find(query.split("\n")[0])
        line += "\n".join(before)[: max(start, 0)].count("\n")
        if value["parseMode"] >= ASSIGNMENT:
            name, query = re.split(r":?=", query, maxsplit=1)
            if name.strip().lower().split(".")[0] == "new":
                self.sources.row_changers.add(self.actor)
            query = f"{name}, {query}"  # a subscript is an expression, too
        if value["parseMode"] != STATEMENT:
            query = "SELECT " + query
        for raw in self.parse(query, line):
            self.walk(raw["stmt"], query.encode(), line)


def read_sources(root: Path) -> Sources:
    """Everything that sql/manifest names."""
    sources = Sources()
    lines = (line.split("#")[0].strip() for line in (root / "sql/manifest").read_text().splitlines())
    for line in filter(None, lines):
        Reader(sources, root, Path("sql") / line).read()
    return sources


def resolved(sources: Sources) -> list[Fact]:
    """The facts about relations and functions of ours: views are written where their rows come from."""
    facts: set[Fact] = set()
    for fact in sources.facts:
        if fact.kind == "call":
            # Functions of the extension touch no table and are free for all.
            if sources.functions.get(fact.target, "extension") != "extension":
                facts.add(fact)
        elif fact.kind == "write":
            facts.update(written(sources, fact, fact.how))
        elif fact.target in sources.relations:
            facts.add(fact)
    for trigger in sources.triggers:
        if trigger.timing == BEFORE and trigger.each_row and trigger.function in sources.row_changers:
            room = sources.functions[trigger.function]
            how = f"BEFORE trigger {trigger.name}"
            place = (trigger.file, trigger.line)
            facts.update(
                written(sources, Fact(*place, room, trigger.function, "write", trigger.relation, how), how)
            )
    return sorted(facts)


def written(sources: Sources, fact: Fact, how: str) -> Iterator[Fact]:
    """The writes of tables, or calls of INSTEAD OF functions, that writing a relation comes to."""
    if fact.target in sources.views:
        event = EVENTS.get(how.split()[-1], sum(EVENTS.values()))
        instead = [
            trigger.function
            for trigger in sources.triggers
            if (trigger.relation, trigger.timing) == (fact.target, INSTEAD) and trigger.events & event
        ]
        for function in instead:
            yield replace(fact, kind="call", target=function, how=f"{how} of {fact.target}")
        for base in () if instead else sources.views[fact.target]:
            yield from written(sources, replace(fact, target=base, how=f"{how} of {fact.target}"), how)
    elif fact.target in sources.relations or fact.target == UNKNOWN:
        yield fact
