"""What the bundled files hash to: sha256 of each, and the fingerprint of each classifier in float32."""

from __future__ import annotations

from typing import Final

__all__ = ["DIGESTS", "FINGERPRINTS"]

DIGESTS: Final = {
    "digits-standard": {
        "checkpoint.json": "6735cf6d091f6b212cf703ce225cd38e289edb343cb0f337abbbfa6c015c551b",
        "graph.json": "4d8333e14854d401cfdcf82d99c4839171ba0a14347c9b80971f289627bde569",
        "weights.safetensors": "6c55e5e00b78e34b04339a2460ecc136964d54a8bc5eca447cd3144856e42bdb",
    },
    "digits-gaussian": {
        "checkpoint.json": "aa159afd88cc95bee66e1d550e3c7260650e282cd47821e670778d9334a0f8a7",
        "graph.json": "4d8333e14854d401cfdcf82d99c4839171ba0a14347c9b80971f289627bde569",
        "weights.safetensors": "b00c6a84eaa89806a019b0fa235bca785f5081aaafc85e89083c705764acb7c3",
    },
    "digits-pgd-linf": {
        "checkpoint.json": "499d9e216d3f9eae044db2e1ae8a93803cacc99ff67651d8319cfc81b9b5331c",
        "graph.json": "4d8333e14854d401cfdcf82d99c4839171ba0a14347c9b80971f289627bde569",
        "weights.safetensors": "02158bc3d656f86c84c8b79083a1cb571085b3bca4ffeda5a6507322baadeeeb",
    },
    "digits-pgd-l2": {
        "checkpoint.json": "e4d12ac66804be6e419ef95296efa0dd104d36d5d3bb64144ebfbd997275cd76",
        "graph.json": "4d8333e14854d401cfdcf82d99c4839171ba0a14347c9b80971f289627bde569",
        "weights.safetensors": "b199c0417db891d73e3af50b004c7db05601a1dc8182f058ff8571056e35ac85",
    },
    "digits-ibp": {
        "checkpoint.json": "266a5ceb4183f5af830c51664448ece01d243cce6f48328967887aa532a5cff6",
        "graph.json": "4d8333e14854d401cfdcf82d99c4839171ba0a14347c9b80971f289627bde569",
        "weights.safetensors": "e81d99ab3b8b50361062fe3f8bd0d879ef58b093e2d5031520dd82beca8edf36",
    },
    "digits-aol": {
        "checkpoint.json": "0bb320621c74570d13b371600dbb4ad7b0a23667a6823cbfd40b9ba9bdd1e43a",
        "graph.json": "b503185fef02d32572abe031c500a5fe5daf002f01f6ab6610d8e9d6d5739be2",
        "weights.safetensors": "6d577467b1a00fbfaac04badc09facfdca543e7dd26a342d4e99442d0676ad7b",
    },
}

FINGERPRINTS: Final = {
    "digits-standard": "4c49d4697e834bbf21dd0c6401bc808515eed66333b91bf50d351cdb5bd8f739",
    "digits-gaussian": "45fdb145b755b58014ffc91989baaf48afac6b6f09ce4b1d42fc27e883b5a279",
    "digits-pgd-linf": "f90d3ebfcaec2aecf86361e63e7e1a945d410a2270c2e6d79d158e1d790a45e3",
    "digits-pgd-l2": "fd88c7a9a81aa824dee569567790857eed01ac0332ef127d6e822ac1b7b8fb58",
    "digits-ibp": "4a1269664697e7a426764e1c5a4da43a94ef0e3713b31e572d8575cc55db52b5",
    "digits-aol": "3ea94381a138a0b3b1496145254c71c1583306dda18a3534761f3f9721500b60",
}
