"""Writes cases.json: templates and what Jinja makes of them in transformers' environment.

    pip install jinja2 transformers && python make.py

`list.txt` holds one template a line (as JSON text); combinations of values, filters and methods are made here.
"""

import copy
import datetime
import json
import pathlib
import random
import re

from transformers.utils import chat_template_utils

here = pathlib.Path(__file__).parent
DATA = {
    "messages": [
        {"role": "user", "content": "Hello <b>World</b> & 🐢 caf\u00e9", "n": 3},
        {"role": "assistant", "content": "line one\nline two\n\nlast", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": [1.5, None]}}}]},
    ],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
}
VALUES = [
    "none", "true", "false", "0", "1", "-7", "3.5", "-0.0", "1e22", "2.5", "12345678901234567890", "''", "'abc'", "'a,b,c'",
    "'Hello World-wide web'", "' x  y '", "'ǆß ﬁ σΣ'", "'42'", "' 1_000 '", "'0x1f'", "'3.7'", "'nan'", "'🐢x🐢y'",
    "[]", "[3, 1, 2]", "['b', 'A', 'c', 'a']", "[1, 'a']", "(1, 2)", "(1,)", "()", "{}", "{'b': 1, 'A': 2, 'c': 0}", "{1: 'x', 2.5: 'y', none: 'z', (1, 2): 't'}",
    "[{'a': 1, 'b': {'c': 'x'}}, {'a': 2, 'b': {'c': 'Y'}}, {'a': 1, 'b': {}}]", "missing", "range(5)", "messages", "messages[0].content", "messages[1].content",
    "'<a href=\"x\">T&amp;C</a>'", "('<i>'|safe)", "[[1, 2], [3]]", "'The quick brown fox-like animal jumps over the lazy dog again and again'",
]
FILTERS = [
    "abs", "attr('a')", "attr('upper')", "batch(2)|list", "batch(2, 'x')|list", "capitalize", "center(9)", "center", "count", "default('d')", "default('d', true)",
    "dictsort", "dictsort(true)", "dictsort(by='value')", "dictsort(reverse=true)", "e", "filesizeformat", "filesizeformat(true)", "first", "float", "float('x')",
    "forceescape", "format(1)", "format(1, 2)", "groupby('a')", "groupby('b.c', default='-')", "indent", "indent(2, true)", "indent('> ', blank=true)", "int", "int(5)", "int(base=16)",
    "items|list", "join", "join(', ')", "join('|', attribute='a')", "last", "length", "list", "lower", "map('upper')|list", "map(attribute='a')|list",
    "map(attribute='zz', default='q')|list", "max", "min", "max(attribute='a')", "min(case_sensitive=true)", "pprint", "reject|list", "reject('odd')|list", "rejectattr('a', 'eq', 1)|list",
    "replace('a', 'X')", "replace('', '-')", "replace('o', '0', 1)", "reverse|list", "reverse", "round", "round(1)", "round(2, 'ceil')", "round(-1)", "round(0, 'floor')", "safe", "select|list", "select('string')|list",
    "select('>', 1)|list", "selectattr('a')|list", "selectattr('b.c', 'defined')|list", "slice(2)|list", "slice(3, 'f')|list", "sort", "sort(true)", "sort(case_sensitive=true)", "sort(attribute='a')", "sort(attribute='a,b.c')",
    "string", "striptags", "sum", "sum(attribute='a')", "sum(start=10)", "sum(start=[])", "title", "tojson", "tojson(indent=2)", "tojson(ensure_ascii=true)", "tojson(sort_keys=true, separators=(',', ':'))",
    "trim", "trim('a')", "truncate(9)", "truncate(9, true, '…', 0)", "unique|list", "unique(attribute='a')|list", "upper", "urlencode", "urlize", "wordcount", "wordwrap(10)", "wordwrap(7, false)", "xmlattr",
    "nosuch", "map|list", "upper('x')", "join(d='-')|upper|length", "string|list|length",
]
TESTS = [
    "boolean", "callable", "defined", "divisibleby(3)", "divisibleby 2", "eq 1", "equalto 'abc'", "escaped", "even", "false", "filter", "float", "ge 1", "gt 1", "greaterthan(0)", "in [1, 'abc', none]",
    "integer", "iterable", "le 1", "lt 1", "lessthan 2", "lower", "mapping", "ne 1", "none", "number", "odd", "sameas true", "sameas none", "sequence", "string", "test", "true", "undefined", "upper", "nosuch",
]
METHODS = [
    "capitalize()", "casefold()", "center(9, '*')", "center(8)", "count('a')", "count('l', 3)", "count('')", "encode()", "encode('ascii', 'replace')", "endswith('c')", "endswith(('x', 'y'))", "expandtabs()", "find('a')", "find('o', 5)", "find('x', -3, 100)",
    "format(1, a=2)", "index('b')", "index('l', 2)", "isalnum()", "isalpha()", "isascii()", "isdecimal()", "isdigit()", "isidentifier()", "islower()", "isnumeric()", "isprintable()", "isspace()", "istitle()", "isupper()",
    "join(['1', '2'])", "join('xyz')", "join([1])", "ljust(9, '.')", "lower()", "lstrip()", "lstrip(' H')", "partition(' ')", "partition('zz')", "removeprefix('a')", "removesuffix('c')", "replace('a', 'b')", "replace('l', 'L', 1)", "replace('', '.')", "replace('', '.', 2)",
    "rfind('o')", "rfind('l', 0, 4)", "rindex('c')", "rjust(9)", "rpartition('-')", "rpartition('zz')", "rsplit()", "rsplit(',', 1)", "rsplit(none, 1)", "rstrip()", "rstrip('dc')", "split()", "split(',')", "split(',', 1)", "split(none, 1)", "split(sep='l', maxsplit=2)", "split('')",
    "splitlines()", "splitlines(true)", "startswith('H')", "startswith('b', 1)", "startswith(('a', '4'))", "strip()", "strip('ac ')", "swapcase()", "title()", "translate({97: 'X', 98: none, 99: 67})", "translate(''.maketrans('ab', 'xy'))", "upper()", "zfill(6)", "zfill(2)",
    "copy()", "index(1)", "index(2, 1)", "count(1)", "get('b')", "get('zz', 9)", "get(1)", "items()", "keys()", "values()", "items()|list", "fromkeys(['p', 'q'], 1)", "bit_length()", "bit_count()", "is_integer()", "hex()", "as_integer_ratio()", "conjugate()",
    "append(1)", "pop()", "update({})", "nosuch()", "__class__", "real", "imag", "numerator", "upper(1)", "strip(1)",
]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"]
SUBSCRIPTS = ["[0]", "[-1]", "[5]", "['b']", "[1:]", "[:-1]", "[::-1]", "[1:5:2]", "[-3:]", "[1]", ".0", ".b", "['upper']()", "[none]", "[true]", "[2.5]", "[1, 2]", "[10:2]"]
SPECS = ["", "5", "<5", ">8", "^9", "*^9", "05", "+", "d", "+d", ",", "_", "x", "#x", "#o", "b", "c", "e", ".2f", ".0f", "10.3e", "%", ".1%", "g", ".3g", "#g", "s", ".2s", "n", "08.2f", "=+8", "z.1f", "015,", "X", "!", "G"]
PERCENTS = ["%s", "%5s", "%-5s|", "%.2s", "%r", "%a", "%d", "%5d", "%05d", "%+d", "%-5d|", "%x", "%#x", "%o", "%X", "%e", "%.2f", "%08.3f", "%g", "%c", "%%", "%i", "%u", "%5.1f%%", "% d", "%q", "%", "%s %s", "%(a)s", "%*d", "%.3d", "%G", "%#.0f"]

environment = chat_template_utils._cached_compile_jinja_template("x").environment


def answer(template):
    # A copy each time: `indent` changes a list in place.
    try:
        text = environment.from_string(template).render(**copy.deepcopy(DATA))
    except RecursionError:
        return None
    except Exception as error:  # noqa: BLE001
        return {"error": type(error).__name__}
    # Functions, places in memory, complex numbers.
    if re.search(r" at 0x[0-9a-f]+|<(built-in|bound) method|\dj\)", text) or len(text) > 3000:
        return None
    return {"text": text}


def templates():
    for line in (here / "list.txt").read_text("utf-8").splitlines():
        if line.strip():
            yield json.loads(line)
    for value in VALUES:
        yield "{{ %s }}|{{ [%s] }}" % (value, value)
        for name in FILTERS:
            yield "{{ %s|%s }}" % (value, name)
        for name in TESTS:
            yield "{{ %s is %s }}" % (value, name)
        for name in METHODS:
            yield "{{ (%s).%s }}" % (value, name)
        for name in SUBSCRIPTS:
            yield "{{ (%s)%s }}" % (value, name)
        for spec in SPECS:
            yield "{{ '{:%s}'.format(%s) }}" % (spec, value)
        for spec in PERCENTS:
            yield "{{ '%s' %% %s }}" % (spec, value)
            if value.startswith("("):
                yield "{{ '%s'|format(%s) }}" % (spec, value)
        for other in VALUES:
            for operator in OPERATORS:
                yield "{{ (%s) %s (%s) }}" % (value, operator, other)


chosen = random.Random(1)
seen = {}
for template in templates():
    if template in seen:
        continue
    # Jinja computes slices of constants beforehand, by other rules.
    if re.match(r"\{\{ \((none|true|false|-?[0-9.e]+|\{.*\})\)\[[^\]]*:", template):
        continue
    # All of the list, filters, tests, methods and formats; some of the many pairs around an operator.
    if re.fullmatch(r"\{\{ \(.*\) (\S+|not in) \(.*\) \}\}", template, re.S) and chosen.random() > 0.12:
        continue
    if "12345678901234567890" in template and ("'*'" in template or " * (" in template or "** " in template):
        continue
    result = answer(template)
    if result is not None:
        seen[template] = result
cases = [[t, r["text"]] if "text" in r else [t, None, r["error"]] for t, r in seen.items()]
lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
head = json.dumps({**DATA}, ensure_ascii=True)
names = {
    "filters": sorted(environment.filters),
    "tests": sorted(environment.tests),
    "globals": sorted(environment.globals),
    "methods": {
        kind.__name__: sorted(
            name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name)) and environment.is_safe_attribute(value, name, getattr(value, name))
        )
        for kind, value in ((str, ""), (list, []), (tuple, ()), (dict, {}), (int, 1), (float, 1.0), (range, range(1)))
    },
}
(here / "names.json").write_text(json.dumps(names, indent=1) + "\n")
(here / "cases.json").write_text('{"data": %s,\n"cases": [\n%s\n]}\n' % (head, lines))
print(len(cases), "cases")

times = [
    datetime.datetime(2025, 2, 3, 4, 5, 6),
    datetime.datetime(2024, 12, 31, 23, 59, 59),
    datetime.datetime(2021, 1, 3),
    datetime.datetime(1999, 7, 4, 12, 30, 1),
    datetime.datetime(2026, 1, 1, 13, 1, 2),
]
formats = ['%'+c for c in 'aAbBcCdDeFgGhHIjklmMnprRSTtuUVwWxXyYzZ%']+['%-d','%-m','%-H','%-I','%-j','%_d','%^a','%^B','%#Z','%05d','%3d','%10Y','%Ey','%Od','%P','%Q','%','a%','%-y','%_m','%-e','%5%','%F %T','%d %B %Y','%A, %d %b','%-S','%_H','%0e','%e','%^b','%#p']
written = [[time.isoformat(), text, time.strftime(text)] for time in times for text in formats]
(here / "times.json").write_text(json.dumps(written))
