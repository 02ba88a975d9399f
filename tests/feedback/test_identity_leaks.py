"""A vote counts only while nobody could know whose answer it was."""

import pytest

from feedback.identity_leaks import names_itself

MODELS = ("smollm2-135m-instruct@a1b2", "acme-helper@c3d4")


@pytest.mark.parametrize(
    "text",
    [
        "As SmolLM, I cannot know that.",
        "I am SmolLM2-135M, how may I help?",
        "I'm an AI language model called Claude.",
        "As an AI assistant trained by OpenAI, I think it is 30 days.",
        "My name is Acme and I found this.",
        "This was developed by HuggingFace.",
    ],
)
def test_an_answer_that_says_whose_it_is_leaks(text: str) -> None:
    assert names_itself(text, question="How many days of leave do we have?", models=MODELS)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How many days?", "30 days, as the handbook says."),
        ("How many days?", "I am sure that it is 30 days."),
        ("Which model do we use?", "The contract names Claude and OpenAI as suppliers."),
        ("Who made the report?", "It was created by Anna, as agreed."),
        ("Was it trained by OpenAI?", "Yes, it was trained by OpenAI."),
    ],
)
def test_an_answer_about_something_else_does_not(question: str, text: str) -> None:
    assert not names_itself(text, question=question, models=MODELS)
