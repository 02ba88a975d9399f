"""Forward-only SQL migrations, `NNNN_words.sql`, installed as `storage.migrations`."""
