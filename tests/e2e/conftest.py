"""The chat apps' fixtures, for tests of the whole."""

from tests.bots.conftest import chat_engine as chat_engine
from tests.bots.conftest import chat_engine_url as chat_engine_url
from tests.bots.conftest import home as home
from tests.bots.conftest import identities as identities
from tests.bots.conftest import keys as keys
from tests.bots.conftest import learn as learn
from tests.bots.conftest import model as model
from tests.bots.conftest import model_port as model_port
from tests.bots.conftest import read_in as read_in
from tests.bots.discord_bot.conftest import discord_audience as discord_audience
from tests.bots.discord_bot.conftest import discord_know as discord_know
from tests.bots.discord_bot.conftest import discord_process as discord_process
from tests.bots.discord_bot.conftest import discord_server as discord_server
from tests.bots.slack_bot.conftest import audience as audience
from tests.bots.slack_bot.conftest import know as know
from tests.bots.slack_bot.conftest import slack as slack
from tests.bots.slack_bot.conftest import slack_process as slack_process
from tests.feedback.argilla_server.conftest import argilla as argilla
from tests.feedback.argilla_server.conftest import common_folder as common_folder
