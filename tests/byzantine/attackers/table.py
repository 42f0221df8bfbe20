"""All attackers, by name."""

from __future__ import annotations

from tests.byzantine.attackers.amnesiac import Amnesiac
from tests.byzantine.attackers.attacker import Attacker
from tests.byzantine.attackers.censor import Censor
from tests.byzantine.attackers.epoch_confuser import EpochConfuser
from tests.byzantine.attackers.equivocating_leader import EquivocatingLeader
from tests.byzantine.attackers.equivocating_voter import EquivocatingVoter
from tests.byzantine.attackers.evidence_forger import EvidenceForger
from tests.byzantine.attackers.forged_certificates import ForgedCertificates
from tests.byzantine.attackers.malformed_payload import MalformedPayload
from tests.byzantine.attackers.selective_sender import SelectiveSender
from tests.byzantine.attackers.silent_leader import SilentLeader
from tests.byzantine.attackers.stale_replayer import StaleReplayer
from tests.byzantine.attackers.sync_liar import SyncLiar
from tests.byzantine.attackers.time_liar import TimeLiar
from tests.byzantine.attackers.withheld_batch import WithheldBatch
from tests.byzantine.attackers.wrong_result_voter import WrongResultVoter

ATTACKERS: dict[str, type[Attacker]] = {
    each.name: each
    for each in (
        EquivocatingLeader,
        EquivocatingVoter,
        Amnesiac,
        SilentLeader,
        SelectiveSender,
        StaleReplayer,
        ForgedCertificates,
        WithheldBatch,
        MalformedPayload,
        WrongResultVoter,
        TimeLiar,
        SyncLiar,
        EpochConfuser,
        EvidenceForger,
        Censor,
    )
}
