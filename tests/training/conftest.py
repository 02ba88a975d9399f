"""What training's tests share with the engine's."""

from tests.engine.conftest import tiny_model_dir

__all__ = ["tiny_model_dir"]
