"""The Slack app's fixtures, for tests of the whole."""

from tests.bots.slack_bot.conftest import audience as audience
from tests.bots.slack_bot.conftest import home as home
from tests.bots.slack_bot.conftest import identities as identities
from tests.bots.slack_bot.conftest import keys as keys
from tests.bots.slack_bot.conftest import know as know
from tests.bots.slack_bot.conftest import model as model
from tests.bots.slack_bot.conftest import model_port as model_port
from tests.bots.slack_bot.conftest import slack as slack
from tests.bots.slack_bot.conftest import slack_engine as slack_engine
from tests.bots.slack_bot.conftest import slack_engine_url as slack_engine_url
from tests.bots.slack_bot.conftest import slack_process as slack_process
