"""Finds what code does with TensorRT, by following its objects through the syntax tree.

`trt` is the module wherever it is an argument, an import or an attribute of that name. What its
calls return is followed through names, attributes of `self`, arguments and results of the same
file's functions and classes, loops and comprehensions. An argument that another file hands in,
annotated `Any`, is known by its name (`ARGUMENTS`), and so is what only another file can have made
(`KEPT`).
"""

import ast
import re
from contextlib import suppress
from dataclasses import dataclass

from fake_tensorrt.surface import parse

ARGUMENTS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
}

KEPT = {"context": ("object", "IExecutionContext")}

MODULE = ("module", "")
MADE_UP = {"IParserError": "ParserError"}


@dataclass(frozen=True)
class Use:
    """One member that code uses.

    Attributes:
        where: file:line.
        owner: a class or enum; empty for the module.
        member: the name that is used of it.
        call: (number of arguments by position, names of those by keyword); None where it is not
            called, or the arguments cannot be counted.
        write: whether it is assigned.
    """

    where: str
    owner: str
    member: str
    call: tuple[int, tuple[str, ...]] | None = None
    write: bool = False

    def __str__(self):
        return ".".join(part for part in (self.owner, self.member) if part)


def uses(source, name, surface):
    """The uses in a file's text, followed by what a surface says that calls return."""
    follower = _Follower(ast.parse(source), name, surface)
    known = None
    while known != follower.known():  # what a later function learns, an earlier one may need
        known = follower.known()
        follower.walk()
    return list(dict.fromkeys(follower.uses))


def problem(use, surface):
    """What is wrong with a use in a release; None where nothing is."""
    if use.owner in surface["enums"] and use.member in surface["enums"][use.owner]:
        return None
    if not use.owner:
        return _problem_of_module(use, surface)
    methods, properties = members(use.owner, surface)
    if use.member in surface["classes"].get(use.owner, {}).get("constants", {}):
        return None
    if use.member in properties:
        access = properties[use.member][0]
        if use.call is not None:
            return f"{use} is a property, not a method"
        wanted = "w" if use.write else "r"
        return None if wanted in access else f"{use} can be {access} only"
    if use.member in methods and not use.write:
        return _problem_of_call(use, methods[use.member])
    return f"there is no {use}"


def _problem_of_module(use, surface):
    if use.member in surface["functions"]:
        return _problem_of_call(use, surface["functions"][use.member])
    if use.member in surface["classes"] and use.call is not None:
        methods, _ = members(use.member, surface)
        if not surface["classes"][use.member].get("constructible"):
            return f"{use} has no constructor"
        return _problem_of_call(use, methods["__init__"])
    tables = ("constants", "enums", "classes")
    known = any(use.member in surface[table] for table in tables)
    known = known or use.member in ("__name__", "__version__")
    return None if known else f"there is no {use}"


def _problem_of_call(use, signatures):
    if use.call is None:
        return None
    count, keywords = use.call
    for text in signatures:
        with suppress(TypeError):
            parse(text).bind((0,) * count, dict.fromkeys(keywords, 0))
            return None
    return f"{use} does not take {count} arguments and {list(keywords)}: {signatures}"


def members(owner, surface):
    """(methods, properties) of a class and those that it comes from."""
    methods, properties = {}, {}
    about = surface["classes"].get(owner, {})
    for name in reversed([owner, *about.get("bases", [])]):
        methods |= surface["classes"].get(name, {}).get("methods", {})
        properties |= surface["classes"].get(name, {}).get("properties", {})
    return methods, properties


class _Follower:
    """Walks one file. A type is (kind, name): module, class, object, enum, member or list."""

    def __init__(self, tree, name, surface):
        self.tree, self.name, self.surface = tree, name, surface
        self.uses = []
        self.arguments, self.results, self.attributes = {}, {}, {}
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        self.functions = {node.name: node for node in functions}
        for owner in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    self.functions[owner.name] = node
        self.within = []

    def known(self):
        return (dict(self.arguments), dict(self.results), dict(self.attributes))

    def walk(self):
        self.uses = []
        self.block(self.tree.body, {})

    # -- statements

    def block(self, body, names):
        for statement in body:
            self.statement(statement, names)

    def statement(self, node, names):
        if isinstance(node, ast.FunctionDef):
            self.function(node, names)
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                self.type(base, names)
            self.block(node.body, dict(names))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ("tensorrt", "tensorrt_rtx"):
                    names[alias.asname or alias.name] = MODULE
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self.pair(target, node.value, names)
        elif isinstance(node, ast.AnnAssign):
            kind = self.type(node.value, names) if node.value else None
            self.assign(node.target, kind, names)
        elif isinstance(node, ast.For):
            self.assign(node.target, self.item(self.type(node.iter, names)), names)
            self.block([*node.body, *node.orelse], names)
        elif isinstance(node, ast.With):
            for item in node.items:
                kind = self.type(item.context_expr, names)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, kind, names)
            self.block(node.body, names)
        elif isinstance(node, ast.Return) and node.value is not None:
            kind = self.type(node.value, names)
            if kind and self.within:
                self.results[self.within[-1]] = kind
        else:
            self.children(node, names)

    def children(self, node, names):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self.statement(child, names)
            elif isinstance(child, ast.expr):
                self.type(child, names)
            else:
                self.children(child, names)

    def function(self, node, names):
        inner = dict(names)
        everything = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in everything:
            inner.pop(argument.arg, None)
            kind = self.arguments.get((id(node), argument.arg))
            loose = argument.annotation is None or ast.unparse(argument.annotation) == "Any"
            if argument.arg in ("trt", "tensorrt"):
                kind = MODULE
            elif kind is None and loose and argument.arg in ARGUMENTS:
                kind = ("object", ARGUMENTS[argument.arg])
            if kind:
                inner[argument.arg] = kind
        self.within.append(id(node))
        self.block(node.body, inner)
        self.within.pop()

    def pair(self, target, value, names):
        """`a, b = c, d`, or one of them."""
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=False):
                self.pair(one, other, names)
            return
        kind = self.type(value, names)
        if not (isinstance(value, ast.Constant) and value.value is None):
            # `engine = None`, where there is none, leaves it what it is elsewhere
            self.assign(target, kind, names)

    def assign(self, target, kind, names):
        if isinstance(target, ast.Name):
            names.pop(target.id, None)
            if kind:
                names[target.id] = kind
        elif isinstance(target, ast.Attribute):
            owner = self.type(target.value, names)
            if owner and owner[0] == "object":
                self.uses.append(Use(self.where(target), owner[1], target.attr, write=True))
            elif isinstance(target.value, ast.Name) and target.value.id == "self" and kind:
                self.attributes[target.attr] = kind
        elif isinstance(target, ast.Tuple | ast.List):
            for element in target.elts:
                self.assign(element, self.item(kind), names)

    # -- expressions

    def type(self, node, names):
        """The type of an expression, if it is TensorRT's; notes the uses in it."""
        if isinstance(node, ast.Name):
            return names.get(node.id) or (MODULE if node.id == "trt" else KEPT.get(node.id))
        if isinstance(node, ast.Attribute):
            return self.attribute(node, names)
        if isinstance(node, ast.Call):
            return self.call(node, names)
        if isinstance(node, ast.Subscript):
            self.type(node.slice, names)
            return self.item(self.type(node.value, names))
        if isinstance(node, ast.NamedExpr):
            kind = self.type(node.value, names)
            self.assign(node.target, kind, names)
            return kind
        if isinstance(node, ast.IfExp | ast.BoolOp):
            parts = node.values if isinstance(node, ast.BoolOp) else [node.body, node.orelse]
            if isinstance(node, ast.IfExp):
                self.type(node.test, names)
            return next((k for k in [self.type(part, names) for part in parts] if k), None)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
            return self.comprehension(node, names)
        self.children(node, names)
        return None

    def comprehension(self, node, names):
        inner = dict(names)
        for generator in node.generators:
            self.assign(generator.target, self.item(self.type(generator.iter, inner)), inner)
            for test in generator.ifs:
                self.type(test, inner)
        if isinstance(node, ast.DictComp):
            self.type(node.key, inner)
            self.type(node.value, inner)
            return None
        kind = self.type(node.elt, inner)
        return ("list", kind) if kind else None

    def attribute(self, node, names, call=None):
        owner = self.type(node.value, names)
        if owner is None:
            itself = isinstance(node.value, ast.Name) and node.value.id == "self"
            if itself and node.attr in ("trt", "_trt"):
                return MODULE
            known = self.attributes.get(node.attr) if itself else None
            return known or KEPT.get(node.attr.removeprefix("_"))
        kind, name = owner
        if (kind == "member" and node.attr in ("name", "value")) or kind == "list":
            return None
        self.uses.append(Use(self.where(node), name, node.attr, call))
        if kind == "module":
            return self.of_module(node.attr)
        if kind == "enum":
            return ("member", name)
        nested = f"{name}.{node.attr}"
        if kind == "class" and nested in self.surface["enums"]:
            self.uses.pop()
            return ("enum", nested)
        properties = members(name, self.surface)[1]
        return self.returned(properties[node.attr][1]) if node.attr in properties else None

    def call(self, node, names):
        for part in [*node.args, *(k.value for k in node.keywords)]:
            self.type(part, names)
        uncounted = any(isinstance(a, ast.Starred) for a in node.args) or any(
            k.arg is None for k in node.keywords
        )
        call = None if uncounted else (len(node.args), tuple(k.arg for k in node.keywords))
        if isinstance(node.func, ast.Name):
            return self.plain_call(node, names)
        if not isinstance(node.func, ast.Attribute):
            self.type(node.func, names)
            return None
        owner = self.type(node.func.value, names)
        if owner and owner[0] == "class" and call:  # trt.ILogger.__init__(self)
            call = (call[0] - 1, call[1])
        kind = self.attribute(node.func, names, call)
        if owner == MODULE:
            return ("object", kind[1]) if kind and kind[0] == "class" else None
        if owner and owner[0] in ("object", "class"):
            signatures = members(owner[1], self.surface)[0].get(node.func.attr)
            return self.returned(signatures[0].rpartition(" -> ")[2]) if signatures else None
        return self.to_own_function(node.func.attr, node, names) if not owner else None

    def plain_call(self, node, names):
        name = node.func.id
        if name == "getattr" and len(node.args) > 1:
            owner = self.type(node.args[0], names)
            if owner and isinstance(node.args[1], ast.Constant):
                made = ast.Attribute(node.args[0], node.args[1].value, ast.Load())
                return self.attribute(ast.copy_location(made, node), names)
            return ("member", owner[1]) if owner and owner[0] == "enum" else None
        called = names.get(name)
        if called and called[0] == "class":
            return ("object", called[1])
        return self.to_own_function(name, node, names)

    def to_own_function(self, name, node, names):
        """Tells a function of the same file what it is given; returns what it returns."""
        function = self.functions.get(name)
        if function is None:
            return None
        own = [*function.args.posonlyargs, *function.args.args]
        given = zip(own[bool(own) and own[0].arg == "self" :], node.args, strict=False)
        by_name = [(k.arg, k.value) for k in node.keywords if k.arg]
        for argument, value in [*((a.arg, v) for a, v in given), *by_name]:
            if kind := self.type(value, names):
                self.arguments[(id(function), argument)] = kind
        return self.results.get(id(function))

    # -- types

    def of_module(self, name):
        if name in self.surface["enums"]:
            return ("enum", name)
        if name in self.surface["classes"]:
            return ("class", name)
        constant = self.surface["constants"].get(name, "")
        return ("member", constant.partition(".")[0]) if constant else None

    def returned(self, text):
        """`list[trt.Dims]` and the like as a type."""
        inner = re.fullmatch(r"list\[(.*)\]", text)
        if inner:
            kind = self.returned(inner[1])
            return ("list", kind) if kind else None
        name = text.removeprefix("trt.").split("::")[-1]
        name = MADE_UP.get(name, name)
        if name in self.surface["enums"]:
            return ("member", name)
        return ("object", name) if name in self.surface["classes"] else None

    def item(self, kind):
        return kind[1] if kind and kind[0] == "list" else None

    def where(self, node):
        return f"{self.name}:{node.lineno}"
