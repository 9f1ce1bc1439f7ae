"""Captions by a vision-language model behind an OpenAI-compatible endpoint: vLLM, SGLang, a cloud.

Asked is ``POST URL/chat/completions``, with the stored pixels as a JPEG in the message. The key,
where one is wanted, is taken from the environment: OPENAI_API_KEY.
"""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from captioning.base import Caption, Network
from captioning.clean import CLEANING_VERSION, clean
from captioning.generated import GeneratedSpec

API_KEY = "OPENAI_API_KEY"

_OF_A_TEXT = {"model", "prompt", "max_tokens", "temperature", "revision"}


class EndpointSpec(GeneratedSpec):
    """Caption by a model that is served elsewhere; an image whose caption is empty is rejected.

    What a server answers is not fixed by a checkpoint's bytes, nor need it answer twice alike: the
    cache of texts is what makes a build repeatable.
    """

    captioner: Literal["endpoint", "sidecar_or_endpoint", "endpoint_with_sidecar_kept"]
    url: str = Field(
        "http://localhost:8000/v1", description="of the API, up to and with its version"
    )
    model: str = Field(min_length=1, description="as the endpoint names it")
    revision: str = Field("", description="of the model, if you know it: another is captioned anew")
    prompt: str = Field(
        "Describe the image in one sentence, for someone who is to paint it. Begin with what is "
        "seen, without an introduction.",
        min_length=1,
        description="what the model is asked beside the image",
    )
    max_tokens: int = Field(120, ge=1, description="length of the answer")
    temperature: float = Field(0, ge=0, le=2, description="0: the likeliest answer")
    batch_size: int = Field(16, ge=1, le=1024, description="requests at once, in each unit in hand")
    requests_per_minute: float | None = Field(
        None, gt=0, description="at most, by each worker; None for no limit"
    )
    timeout: float = Field(120, gt=0, description="for one answer; seconds")
    max_retries: int = Field(
        6, ge=0, description="of a request, where the endpoint is busy or away for a moment"
    )

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http or https URL")
        if parts.username or parts.password or parts.query:
            raise ValueError(f"a recipe is kept and shown: give the key in {API_KEY}, not in url")
        return url.rstrip("/")

    @property
    def identity(self) -> dict[str, Any]:
        """All that changes a caption; not where and how fast the endpoint is asked."""
        fields = self.model_dump(mode="json", include={"captioner", "max_characters"})
        return {**fields, **self.network_identity, "cleaning": CLEANING_VERSION}

    @property
    def network_identity(self) -> dict[str, Any]:
        """What changes a generated text, as far as it can be known."""
        return self.model_dump(mode="json", include=_OF_A_TEXT)

    @property
    def network(self) -> "EndpointSpec":
        """This spec: its fields are those of the requests too."""
        return self

    @property
    def on_device(self) -> bool:
        """No: the work is another machine's."""
        return False

    def load(self, device: str) -> Network:
        """Return what asks the endpoint; `device` does not matter."""
        from captioning.endpoint_client import Endpoint

        return Endpoint(self)

    def said(self, generated: str, sidecar: str) -> Caption | None:
        """Return the caption that the model's text is; None where it says nothing."""
        text = clean(generated)[: self.max_characters].rstrip()
        return Caption(text=text, source="endpoint", sidecar=sidecar) if text else None
