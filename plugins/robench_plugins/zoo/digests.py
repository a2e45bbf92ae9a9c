"""What the bundled files hash to: sha256 of each, and the fingerprint of each classifier in float32."""

from __future__ import annotations

from typing import Final

__all__ = ["DIGESTS", "FINGERPRINTS"]

DIGESTS: Final = {
    "digits-standard": {
        "checkpoint.json": "908f17278a7e88bc570bf855575040b4a2929ef931f7ad73313f5953738b9a57",
        "graph.json": "91589f48c1161f634ce6d842ed263db7dec2f6f79faf1083584c8a96e395a554",
        "weights.safetensors": "4e107a7a7239fe3d245c1371ca83ca558abae6d0b19291310d5a77edf1b144c1",
    },
    "digits-gaussian": {
        "checkpoint.json": "13d3c16b7be15c167bf98772de0a3d850e8b8fdc3fa90d27a57192345451237f",
        "graph.json": "91589f48c1161f634ce6d842ed263db7dec2f6f79faf1083584c8a96e395a554",
        "weights.safetensors": "316ff22118a8e324207c2f89c660388b22eb4db53caceb1a9c03a57fe6593d2a",
    },
    "digits-pgd-linf": {
        "checkpoint.json": "c090d35232a5bf2b7a8488bbbe16f3fdf6388dd933a50fab4769ab4351a01310",
        "graph.json": "91589f48c1161f634ce6d842ed263db7dec2f6f79faf1083584c8a96e395a554",
        "weights.safetensors": "ffca13d06f283c14d2ef4916de7f5f2df0df7b5220adad3eb95b7724ab7b0601",
    },
    "digits-pgd-l2": {
        "checkpoint.json": "0a77d10cf36149099bbce879a925159111c0171b724905fbc96f4c590470bc4e",
        "graph.json": "91589f48c1161f634ce6d842ed263db7dec2f6f79faf1083584c8a96e395a554",
        "weights.safetensors": "80387256ceb99fd843dbdfd0234f031f915821aa4da1df3307ee3108eed45e7a",
    },
    "digits-ibp": {
        "checkpoint.json": "073369bd8ccaceb08999f1a2c975b052e52995c2c46eaf816419c7a4dfbe4bb3",
        "graph.json": "91589f48c1161f634ce6d842ed263db7dec2f6f79faf1083584c8a96e395a554",
        "weights.safetensors": "4ca97435adc2d685d67ebdfdd6e69e8cb8c889ccecf94375b08dea5df970287b",
    },
    "digits-aol": {
        "checkpoint.json": "8ad66c5ef3be9b9205bd4f46f36d89544d475e9e5387eef26fd80be8138a33fe",
        "graph.json": "b503185fef02d32572abe031c500a5fe5daf002f01f6ab6610d8e9d6d5739be2",
        "weights.safetensors": "bcab90b0e80085b16616dc598384ff2cb6ec309a0df19881bd96ae66077a7f83",
    },
}

FINGERPRINTS: Final = {
    "digits-standard": "3b8633b64ea87e724aee3bf09503de9172f184096cd1f6a11d64c07125ab7640",
    "digits-gaussian": "f3fc8dfe600f65b6ddba593db82266157070e5ab158a03b30aaacd87fbb24aba",
    "digits-pgd-linf": "ab5c06116d9cc534474c6c61eca37d92cdbe8c88764bc9f853494744e36aa25d",
    "digits-pgd-l2": "2fa732941cec2e64070bed644b5788e9f57b6690218ea3c99719f3309602c7bd",
    "digits-ibp": "c29aa186657bcf3e6e4a37141d2e2628d16b927c8d008e006732f4ec9f05f5de",
    "digits-aol": "2a9fc14352efaee2ae736efdf5d0adfec08d907e879faee79e69f8d063adf881",
}
