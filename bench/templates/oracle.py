"""Renders conversations with transformers, as apply_chat_template does, for bench/templates/compare.ts.

Reads one JSON object: {"now", "tokens", "templates": [text], "jobs": [[template, {"messages", ...}]]}.
Writes a line per job: {"text"} or {"error"}.
"""

import datetime
import json
import sys

import transformers
from transformers.utils import chat_template_utils as utils

given = json.load(sys.stdin)
now = datetime.datetime.fromisoformat(given["now"])
print(json.dumps({"version": transformers.__version__}))


def compiled(text):
    template = utils._compile_jinja_template(text)
    template.globals["strftime_now"] = now.strftime
    return template


def render(text, request):
    request = dict(request)
    messages = request.pop("messages")
    go_on = request.get("continue_final_message", False)
    if go_on and request.get("add_generation_prompt", False):
        raise ValueError("continue_final_message and add_generation_prompt")
    compiled(text)
    rendered, _ = utils.render_jinja_template(
        conversations=[utils._normalize_chat_messages(messages)],
        chat_template=text,
        tools=request.pop("tools", None),
        documents=request.pop("documents", None),
        **{**given["tokens"], **request},
    )
    return rendered[0]


for index, request in given["jobs"]:
    try:
        answer = {"text": render(given["templates"][index], request)}
    except Exception as error:  # whatever a template raises
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps(answer))
