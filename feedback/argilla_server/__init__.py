"""The embedded Argilla: the real server 2.8 with its own web pages, started and kept by Parley.

`process.run` is all that a process needs: it builds Argilla's virtual environment where that is
missing (`environment`), makes its database and its secrets, starts Redis and Argilla, and stops
both. The folder `inside` runs in that environment and not in ours: `launch` forks server and
worker, `sql_search` is the search engine that queries Argilla's own tables.

Why an environment of its own: Argilla wants pydantic 2.9 and click 8.1, everything else newer ones.
Why no Elasticsearch: a second store that takes a gigabyte to find what Postgres finds.
"""
