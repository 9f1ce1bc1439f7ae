"""How unsafe an image looks: Yahoo's open_nsfw, a score from 0 to 1; a measure, no condition."""

from typing import Literal

from detectors.base import Network, NetworkSpec, Precision

NsfwCheckpoint = Literal["open_nsfw"]


class NsfwNetwork(NetworkSpec):
    """open_nsfw: a thin ResNet-50."""

    checkpoint: NsfwCheckpoint = "open_nsfw"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network, which runs on the CPU in fp32 whatever the device.

        Its findings are scores, 0 (safe) to 1.
        """
        from detectors.networks.open_nsfw import OpenNsfw

        return OpenNsfw(self.checkpoint)
