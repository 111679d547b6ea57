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
from room_texts import ANYTHING, PLACEHOLDER, dynamic_text, names

# The targets of what an EXECUTE takes from a variable: any table or function.
UNKNOWN = "unknown"
# Statements that name the table they change in one field.
WRITES = {
    "InsertStmt": ("INSERT", "relation"),
    "UpdateStmt": ("UPDATE", "relation"),
    "DeleteStmt": ("DELETE", "relation"),
    "MergeStmt": ("MERGE", "relation"),
    "AlterTableStmt": ("ALTER TABLE", "relation"),
    "IndexStmt": ("CREATE INDEX", "relation"),
    "CreatePolicyStmt": ("CREATE POLICY", "table"),
}
# What else is understood everywhere, only in files, and only in bodies. Files hold nothing else; what else
# stands in a body writes whatever it names.
STATEMENTS = {*WRITES, "SelectStmt", "TruncateStmt", "CopyStmt", "LockStmt", "CommentStmt", "CreateStmt"}
DEFINITIONS = {"CreateFunctionStmt", "CreateTrigStmt", "DoStmt", "ViewStmt"}
# A domain and its rights, which sql/grants has no line for; of no account for what is written or called.
OF_DOMAINS = {"CreateDomainStmt", "GrantStmt"}
IN_BODIES = {"CallStmt", "CreateRoleStmt", "CreateTableAsStmt", "DropStmt", "NotifyStmt", "VariableSetStmt"}
# What DROP and COMMENT name: a relation, or something of one.
RELATIONS = {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"}
PARTS = {"OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE"}
# Parts of PL/pgSQL's tree whose query is text that is run, and how its parser says what a text is.
DYNAMIC = ("PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors")
STATEMENT, ASSIGNMENT = 0, 3
WRITING_WORDS = re.compile(
    r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY|ALTER)\s+(?:INTO\s+|FROM\s+|TABLE\s+|ONLY\s+)*(\w+)",
    re.IGNORECASE,
)
# Through a view, these write the tables below it; all else acts on the view itself.
ROW_WRITES = {"INSERT", "UPDATE", "DELETE", "MERGE", "COPY"}
# pg_trigger's bits.
BEFORE, INSTEAD = 2, 64
EVENTS = {"INSERT": 4, "DELETE": 8, "UPDATE": 16}
# What a BEFORE trigger may return at which events without changing what is written.
KEEPS = {"new": 4 | 16, "old": 8, "coalesce(new, old)": 4 | 8 | 16}
# What the build makes for the runner, in no source.
BUILT = {"_wa_scripts": "extension"}


class SourceError(Exception):
    """A source cannot be read; the message names the place."""


@dataclass(frozen=True, order=True)
class Fact:
    """Something in a source acts on a relation or calls a function."""

    file: str
    line: int
    room: str
    actor: str
    kind: str  # write, read or call
    target: str
    how: str

    @property
    def key(self) -> str:
        """Under this name tests/rooms.toml excepts it."""
        return f"{self.actor} -> {self.target}" + (f" ({self.how})" if self.target == UNKNOWN else "")


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
    relations: dict[str, str] = field(default_factory=lambda: dict(BUILT))
    functions: dict[str, str] = field(default_factory=dict)
    views: dict[str, list[str]] = field(default_factory=dict)
    triggers: list[Trigger] = field(default_factory=list)
    returns: dict[str, set[str]] = field(default_factory=dict)
    facts: set[Fact] = field(default_factory=set)


def nodes(tree: Any, kind: str) -> Iterator[Any]:
    """Every node of that kind in a tree."""
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(value, kind)
    if isinstance(tree, dict) and kind in tree:
        yield tree[kind]


def relation_of(kind: str, named: Any) -> str:
    """The relation that a DROP or COMMENT is about, if its kind of object tells."""
    if kind in PARTS:
        return names(named["List"]["items"][:-1])
    return names(named["List"]["items"]) if kind in RELATIONS else ""


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
            before = re.match(r"(?:\s|--.*\n)*", self.statement)
            start += len(before[0].encode()) if before else 0
            line = self.line(content, start, 1)
            (kind, statement), *_ = raw["stmt"].items()
            if kind not in STATEMENTS | DEFINITIONS | OF_DOMAINS or (
                kind == "GrantStmt" and statement["objtype"] != "OBJECT_DOMAIN"
            ):
                raise SourceError(f"{self.file}:{line}: rooms hold no {kind}")
            self.define(kind, statement, line)
            self.walk(raw["stmt"], content, 1, start=start)
            if kind in ("CreateFunctionStmt", "DoStmt"):
                self.body(statement, content)

    def parse(self, query: str, line: int) -> list[dict[str, Any]]:
        """The statements of a text."""
        try:
            return list(json.loads(parse_sql_json(query)).get("stmts", []))
        except ParseError as error:
            raise SourceError(f"{self.file}:{line}: {self.actor}: {error}") from error

    def note(self, kind: str, target: str, how: str, line: int) -> None:
        """Take down one fact. What EXECUTE writes or calls by a variable may be any table."""
        if ANYTHING in target:  # run() noted the text as a whole
            return
        if PLACEHOLDER in target:
            if kind not in ("write", "call"):
                return
            kind, target = "write", UNKNOWN
        self.sources.facts.add(Fact(self.file, line, self.room, self.actor, kind, target, how))

    def define(self, kind: str, statement: Any, line: int) -> None:
        """Take down what a statement of the file makes; what it contains is the doing of the new object."""
        if kind in ("CreateStmt", "ViewStmt"):
            self.actor = (statement.get("relation") or statement["view"])["relname"]
            self.own(self.sources.relations, self.actor, line)
            if kind == "ViewStmt":
                query = statement["query"]["SelectStmt"].get("fromClause", [])
                self.sources.views[self.actor] = [r["relname"] for r in nodes(query, "RangeVar")]
        elif kind == "CreateFunctionStmt":
            self.actor = names(statement["funcname"])
            self.own(self.sources.functions, self.actor, line)
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

    def own(self, owners: dict[str, str], name: str, line: int) -> None:
        """Take down that something is of this room."""
        home = owners.setdefault(name, self.room)
        if home != self.room:
            raise SourceError(f"{self.file}:{line}: {name} is of room {home} already")

    @staticmethod
    def line(query: bytes, location: int, first: int) -> int:
        """The line of the file at an offset of a query that starts in line first."""
        return first + query[:location].count(b"\n")

    def inner(self, tree: Any, query: bytes, first: int, via: str = "") -> None:
        """A statement of a body, or of a text that is run."""
        (kind, value), *_ = tree.items()
        if kind in DEFINITIONS:
            raise SourceError(f"{self.file}:{first}: {self.actor}: bodies hold no {kind}")
        if kind not in STATEMENTS | IN_BODIES:
            how = f"{via} {kind.removesuffix('Stmt').upper()}".strip()
            named = [r for name in ("RangeVar", "relation", "table") for r in nodes(value, name)]
            for relation in named or [{}]:
                self.note("write", relation.get("relname", PLACEHOLDER), how, first)
        self.walk(tree, query, first, via)

    def walk(self, tree: Any, query: bytes, first: int, via: str = "", start: int = 0) -> None:
        """Take down the facts of a parse tree; via says what runs it if it is no plain statement."""
        with_queries = {cte["ctename"] for cte in nodes(tree, "CommonTableExpr")}

        def target(relation: Any, kind: str, how: str) -> None:
            line = self.line(query, relation.get("location", start), first)
            self.note(kind, relation["relname"], f"{via} {how}".strip(), line)

        def made(relation: Any) -> None:
            """A table that lasts is of the room that makes it."""
            if PLACEHOLDER in relation["relname"]:
                target(relation, "write", "CREATE TABLE")
            elif relation["relpersistence"] != "t" and relation.get("schemaname") != "pg_temp":
                line = self.line(query, relation.get("location", start), first)
                self.own(self.sources.relations, relation["relname"], line)

        def visit(node: Any) -> None:
            for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
                visit(child)
            for kind, value in node.items() if isinstance(node, dict) else ():
                if kind in WRITES:
                    how, name = WRITES[kind]
                    target(value[name], "write", how)
                    for other in (command.get("def", {}) for command in nodes(value, "AlterTableCmd")):
                        if "RangeVar" in other or "PartitionCmd" in other:
                            target(other.get("RangeVar") or other["PartitionCmd"]["name"], "write", how)
                elif kind in ("TruncateStmt", "LockStmt"):
                    for relation in nodes(value["relations"], "RangeVar"):
                        target(relation, "write", kind.removesuffix("Stmt").upper())
                elif kind == "CopyStmt" and value.get("is_from"):
                    target(value["relation"], "write", "COPY")
                elif kind == "CommentStmt":
                    target({"relname": relation_of(value["objtype"], value["object"])}, "write", "COMMENT")
                elif kind == "DropStmt":
                    for dropped in value["objects"]:
                        relation = relation_of(value["removeType"], dropped) or PLACEHOLDER
                        target({"relname": relation}, "write", "DROP")
                elif kind == "CreateStmt":
                    made(value["relation"])
                    for relation in nodes(value.get("inhRelations", []), "RangeVar"):
                        target(relation, "write", "PARTITION OF" if "partbound" in value else "INHERITS")
                elif kind in ("intoClause", "into"):
                    made(value["rel"])
                elif kind == "RangeVar" and value["relname"] not in with_queries:
                    target(value, "read", "read")
                elif kind in ("FuncCall", "funccall"):
                    self.note(
                        *("call", names(value["funcname"]), via or "call"),
                        self.line(query, value.get("location", 0), first),
                    )

        visit(tree)

    def body(self, statement: Any, query: bytes) -> None:
        """The body of a function or DO block that is a string."""
        definition = statement.get("options") or statement.get("args") or []
        options = {option["DefElem"]["defname"]: option["DefElem"] for option in definition}
        if "as" not in options:
            return
        first = self.line(query, options["as"]["location"], 1)
        language = options["language"]["arg"]["String"]["sval"] if "language" in options else "plpgsql"
        if language not in ("sql", "plpgsql", "plpython3u"):
            raise SourceError(f"{self.file}:{first}: {self.actor}: rooms hold no functions in {language}")
        (text,) = [part["sval"] for part in nodes(options["as"]["arg"], "String")]
        if language == "sql":
            for raw in self.parse(text, first):
                self.inner(raw["stmt"], text.encode(), first)
        elif language == "plpgsql":
            self.content = text
            (tree,) = self.plpgsql_tree(first)
            self.trigger_function(tree["PLpgSQL_function"], first)
            self.plpgsql(tree, first, first)
        else:
            self.python(re.sub(r"@@include (\S+)@@", lambda m: (self.root / m[1]).read_text(), text), first)

    def python(self, text: str, first: int) -> None:
        """Queries of a PL/Python body."""
        try:
            tree = ast.parse("def body():\n" + indent(text, " "))
        except SyntaxError as error:
            raise SourceError(f"{self.file}:{first}: {self.actor}: {error}") from error
        if re.search(r"\bplpy\b(?!\.\w+\()", ast.unparse(tree)):
            raise SourceError(f"{self.file}:{first}: {self.actor}: plpy may stand as plpy.NAME(…) only")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"plpy\.(execute|prepare|cursor)", ast.unparse(node.func)
            ):
                query = node.args[0] if node.args else None
                self.run(str(query.value) if isinstance(query, ast.Constant) else ANYTHING, first)
        returns = {
            ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value
        }
        # A trigger changes its row by returning MODIFY or SKIP.
        self.sources.returns[self.actor] = {"changed"} if returns - {"None", "'OK'"} else set()

    def run(self, text: str, line: int) -> None:
        """A statement that is put together when it is run."""
        try:
            trees = [raw["stmt"] for raw in json.loads(parse_sql_json(text)).get("stmts", [])]
        except ParseError:  # too much of it is not known before
            trees = []
            for match in WRITING_WORDS.finditer(text):
                self.note("write", match[2].lower(), f"EXECUTE {match[1].upper()}", line)
        if ANYTHING in text or not trees:
            self.note("write", PLACEHOLDER, "EXECUTE", line)
        for tree in trees:
            # Offsets mean nothing in a text that is not in the file.
            self.inner(tree, b"", line, "EXECUTE")

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

    def trigger_function(self, function: Any, first: int) -> None:
        """What a trigger function returns, and whether it may have changed that before."""
        if "new_varno" not in function:
            return
        new, action = function["new_varno"], function["action"]
        # Variables go by their numbers here, whatever name a statement has for them.
        changed = {*nodes(action, "varno"), *(record.get("dno") for record in nodes(action, "PLpgSQL_rec"))}
        changed.update(item.get("target") for item in nodes(action, "PLpgSQL_diag_item"))
        numbers = {
            number
            for number, datum in enumerate(function["datums"])
            if number == new or datum.get("PLpgSQL_recfield", {}).get("recparentno") == new
        }
        aliases = {
            name.lower() for name in re.findall(r'(\w+)"?\s+ALIAS\s+FOR\b', self.content, re.IGNORECASE)
        }
        passed: set[str] = set()
        for call in nodes(action, "PLpgSQL_stmt_call"):
            tree = self.parse(call["expr"]["PLpgSQL_expr"]["query"], first)
            passed.update(part["sval"] for ref in nodes(tree, "ColumnRef") for part in nodes(ref, "String"))
        rows = [name for name in nodes(function["datums"], "refname") if name in ("new", "old")]
        returns = self.sources.returns.setdefault(self.actor, set())
        if changed & numbers or passed & {"new", *aliases} or aliases & {"new", "old"} or len(rows) > 2:
            returns.add("changed")
        for value in nodes(action, "PLpgSQL_stmt_return"):
            if "expr" in value:
                returns.add(" ".join(value["expr"]["PLpgSQL_expr"]["query"].lower().split()))

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
            self.plpgsql(value, first, line)

    def expression(self, value: Any, first: int, line: int) -> None:
        """One query or expression of a PL/pgSQL body, whose statement begins in that line."""
        query = value["query"]
        before = self.content.split("\n")[line - first :]
        start = "\n".join(before).find(query.split("\n")[0])
        line += "\n".join(before)[: max(start, 0)].count("\n")
        if value["parseMode"] >= ASSIGNMENT:
            name, query = re.split(r":?=", query, maxsplit=1)
            query = f"{name}, {query}"  # a subscript is an expression, too
        if value["parseMode"] != STATEMENT:
            query = "SELECT " + query
        for raw in self.parse(query, line):
            self.inner(raw["stmt"], query.encode(), line)


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
            # Functions of the extension touch no table but the runner's own and are free for all.
            if sources.functions.get(fact.target, "extension") != "extension":
                facts.add(fact)
        elif fact.kind == "write":
            facts.update(written(sources, fact, fact.how))
        elif fact.target in sources.relations:
            facts.add(fact)
    for trigger in sources.triggers:
        returns = sources.returns.get(trigger.function, {"changed"})
        changes = any(trigger.events & ~KEEPS.get(row, 0) for row in returns)
        if trigger.timing == BEFORE and trigger.each_row and changes:
            room = sources.functions.get(trigger.function, trigger.room)
            how = f"BEFORE trigger {trigger.name}"
            place = (trigger.file, trigger.line)
            facts.update(
                written(sources, Fact(*place, room, trigger.function, "write", trigger.relation, how), how)
            )
    return sorted(facts)


def written(sources: Sources, fact: Fact, how: str) -> Iterator[Fact]:
    """The writes of tables, or calls of INSTEAD OF functions, that writing a relation comes to."""
    if fact.target in sources.views and how.split()[-1] in ROW_WRITES:
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
