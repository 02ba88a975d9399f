"""A workspace whose members rate answers."""

from tests.feedback.conftest import answered as answered
from tests.feedback.conftest import conversations as conversations
from tests.feedback.conftest import feedback as feedback
from tests.storage.conftest import team as team
