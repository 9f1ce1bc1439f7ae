"""People by OpenPifPaf (paper, section 3.5, "Human Pose (Openpifpaf)"): 17 keypoints.

Its own package brings network, checkpoint and decoding. It has no wheel and builds against older
versions of torch only, so it needs an environment of its own, with Ray a ``runtime_env``.
"""

from typing import Literal

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.errors import DetectorError
from detectors.keypoints import PoseSpec

PifPafCheckpoint = Literal["shufflenetv2k16", "shufflenetv2k30"]

VERSION = "0.13.11"
"""Of the package: its last release."""


class PifPafNetwork(NetworkSpec):
    """One of OpenPifPaf's own checkpoints, by its name there."""

    checkpoint: PifPafCheckpoint = "shufflenetv2k30"

    @property
    def identity(self) -> str:
        """The package and its name for the checkpoint, which it fetches itself."""
        return f"openpifpaf {VERSION} {self.checkpoint}"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are lists of `detectors.keypoints.Person`, 17 joints.

        Raises:
            DetectorError: the package openpifpaf is not installed.
        """
        try:
            import openpifpaf
        except ImportError as error:
            raise DetectorError(
                "openpifpaf needs the package of that name, which builds against older versions "
                f"of torch only: pip install openpifpaf=={VERSION} in an environment of its own "
                "(with Ray, a runtime_env), or take detector movenet or openpose_light"
            ) from error
        from detectors.networks.openpifpaf import OpenPifPaf

        return OpenPifPaf(openpifpaf.Predictor, self.checkpoint, device)


class OpenPifPafSpec(PoseSpec):
    """COCO's joints, drawn as OpenPose's skeleton with the neck between the shoulders."""

    detector: Literal["openpifpaf"] = "openpifpaf"
    condition: ConditionName = "openpifpaf"
    checkpoint: PifPafCheckpoint = "shufflenetv2k30"

    @property
    def network(self) -> PifPafNetwork:
        """OpenPifPaf; shared by all thresholds."""
        return PifPafNetwork(checkpoint=self.checkpoint)
