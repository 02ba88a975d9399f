"""The engine: CTranslate2 models behind an OpenAI-compatible HTTP server.

Does: load quantized generators and embedders, batch requests the way CTranslate2 likes them,
stream, cancel, swap models while serving, render chat prompts (shared with training), convert and
pull models.

Does not: know SQL, documents or chat platforms. Retrieved text arrives inside a prompt that
`bots.assistant` built. Serving imports neither torch nor transformers; only `engine.convert` does.

Entry points: `python -m engine serve | convert | pull`, `engine.client.EngineClient` (async, for
every other process), `engine.prompt` (the prompt that serving and training share).
"""
