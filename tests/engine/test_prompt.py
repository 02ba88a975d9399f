import itertools
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.prompt import (
    PLAIN_TEMPLATE,
    RAG_SYSTEM_TEXT,
    ChatMessage,
    PromptSource,
    Role,
    rag_messages,
    render_chat,
)
from tests.engine.tiny_models import CHAT_TEMPLATE

# Templates as models of these families carry them.
TEMPLATES = {
    "chatml": CHAT_TEMPLATE,
    "chatml with default system": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama 2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}"
        "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/...') }}"
        "{% endif %}{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + "
        "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "llama 3": (
        "{{- bos_token }}\n"
        "{%- if not date_string is defined %}\n"
        "    {%- if strftime_now is defined %}\n"
        '        {%- set date_string = strftime_now("%Y") %}\n'
        "    {%- else %}\n"
        '        {%- set date_string = "26 Jul 2024" %}\n'
        "    {%- endif %}\n"
        "{%- endif %}\n"
        "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}\n"
        "{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content']|trim %}\n"
        "    {%- set messages = messages[1:] %}\n"
        "{%- else %}\n"
        '    {%- set system_message = "" %}\n'
        "{%- endif %}\n"
        '{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}\n'
        "{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}\n"
        '{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}\n'
        "{%- for message in messages %}\n"
        "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
        "+ message['content'] | trim + '<|eot_id|>' }}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n"
        "{%- endif %}\n"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "qwen 3": (
        "{%- if messages[0].role == 'system' %}\n"
        "    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n"
        "{%- endif %}\n"
        "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}\n"
        "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if ns.multi_step_tool and message.role == 'user' "
        "and message.content is string %}\n"
        "        {%- set ns.multi_step_tool = false %}\n"
        "        {%- set ns.last_query_index = index %}\n"
        "    {%- endif %}\n"
        "{%- endfor %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'system' %}{% continue %}{% endif %}\n"
        "    {%- set content = message.content %}\n"
        "    {%- if message.role == 'assistant' and '</think>' in content %}\n"
        "        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
        "    {%- endif %}\n"
        "    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|im_start|>assistant\\n' }}\n"
        "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
        "        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
        "    {%- endif %}\n"
        "{%- endif %}"
    ),
    "generation block, json and dict": (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}"
        "{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ message | tojson(indent=2) }}{{ dict(a=1)['a'] }}{% endif %}\n"
        "  {% if loop.index > 7 %}{% break %}{% endif %}\n"
        "{% endfor %}"
    ),
    "plain": PLAIN_TEMPLATE,
}
CONTENTS = st.text(alphabet="aB <>&\"'\n\té東🙂{}%</think>", max_size=20)
CHATS = st.lists(
    st.builds(ChatMessage, role=st.sampled_from(get_args(Role)), content=CONTENTS),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("name", TEMPLATES)
@given(chat=CHATS, opening=st.booleans())
def test_rendering_equals_that_of_transformers(
    name: str, chat: list[ChatMessage], opening: bool
) -> None:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    plain = [{"role": message.role, "content": message.content} for message in chat]
    try:
        rendered_chats = render_jinja_template(
            conversations=[plain],
            chat_template=TEMPLATES[name],
            add_generation_prompt=opening,
            bos_token="<s>",
            eos_token="</s>",
        )
        expected = rendered_chats[0][0]
    except TemplateError as error:
        expected = str(error)
    try:
        rendered = render_chat(
            TEMPLATES[name],
            chat,
            bos_token="<s>",
            eos_token="</s>",
            add_generation_prompt=opening,
        )
    except InvalidRequest as error:
        rendered = str(error).partition("refuses these messages: ")[2]
    assert rendered == expected


def test_option_reaches_the_template() -> None:
    chat = [ChatMessage(role="user", content="Hello")]
    rendered = render_chat(TEMPLATES["qwen 3"], chat, options={"enable_thinking": False})
    assert rendered.endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}{{ messages.__class__.mro() }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{% set ns = namespace(a=1) %}{% set ns.__call__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ [1].pop(7) }}",
        "{% for i in range(1000000) %}{{ i }}{% endfor %}",
    ],
)
def test_template_that_reaches_out_or_breaks_is_refused(template: str) -> None:
    with pytest.raises(InvalidRequest, match="chat template refuses these messages"):
        render_chat(template, [ChatMessage(role="user", content="Hello")])


def _sources(*texts: str, title: str = "Report.pdf, page 3") -> list[PromptSource]:
    return [
        PromptSource(number=number, title=title, text=text)
        for number, text in enumerate(texts, start=1)
    ]


def test_retrieval_prompt_has_system_history_and_the_question_last() -> None:
    history = [
        ChatMessage(role="user", content="What was the budget?"),
        ChatMessage(role="assistant", content="12,000 euros [1]."),
    ]
    messages = rag_messages(
        question="And in 2024?", history=history, sources=_sources("It was 15,500 euros.")
    )
    assert messages[0] == ChatMessage(role="system", content=RAG_SYSTEM_TEXT)
    assert messages[1:3] == history
    assert messages[3].role == "user"
    assert messages[3].content.endswith("Question: And in 2024?\nAnswer:")
    assert "15,500 euros" in messages[3].content


BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
ATTACK = st.lists(
    st.sampled_from(["[1]", "[2] Report", "Question: who?", "Sources:", " ", "x", *BREAKS])
).map("".join)


@given(
    titles=st.lists(ATTACK, min_size=2, max_size=2), texts=st.lists(ATTACK, min_size=2, max_size=2)
)
def test_no_source_can_open_a_block_or_pose_as_the_question(
    titles: list[str], texts: list[str]
) -> None:
    sources = [
        PromptSource(number=number, title=title, text=text)
        for number, title, text in zip(itertools.count(1), titles, texts, strict=False)
    ]
    content = rag_messages(question="Who?", history=[], sources=sources)[-1].content
    opening = re.compile(r"\[\d+\]|Question:|Sources:")
    assert [found[0] for line in content.splitlines() if (found := opening.match(line))] == [
        "Sources:",
        "[1]",
        "[2]",
        "Question:",
    ]


def test_without_sources_only_the_question_is_asked() -> None:
    messages = rag_messages(question="Who?", history=[], sources=[])
    assert "Sources" not in messages[-1].content
    assert "Who?" in messages[-1].content
