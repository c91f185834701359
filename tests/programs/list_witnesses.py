"""What attacks left standing and a complete method breaks: python tests/programs/list_witnesses.py RESULTS STEM.

RESULTS is a results folder with digits verdicts, packed or in its store, in which `certify --method bab` or `milp` ran.
Writes STEM.csv, a row an image: what the witness is taken for, by how much, and its pixels as they are judged.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmark.data.datasets import load
from benchmark.report.score import score_suite
from benchmark.report.tables import write_csv
from benchmark.store.certificate_store import CertificateStore
from benchmark.store.packed import read_packed
from benchmark.store.sealed import read_sealed
from model_zoo.load import load_model
from model_zoo.registry import models_of


def main() -> None:
    results, stem = Path(sys.argv[1]), Path(sys.argv[2])
    suite = score_suite(read_packed(results / "verdicts/digits.json"), "digits")
    store, models = CertificateStore(results / "runs"), models_of("digits", Path("unused"))
    split = load("digits", "test", data_dir=Path("unused"))
    rows = []
    for key in store.case_keys():
        record = read_sealed(store.root / "certificates" / key / "case.json")
        assert record is not None
        about = record["identity"]
        found = [spec for spec in models.values() if dict(spec.identity) == about["model"]]
        if not found or about["method"]["name"] not in ("bab", "milp") or about["threat"]["norm"] != "Linf":
            continue
        (spec,) = found
        model = load_model(spec, Path("unused"), classes=10)
        standing = suite.shared[spec.name][suite.worst[spec.name]]
        for chunk, _ in store.chunks(key):
            read = store.read_chunk(key, chunk)
            assert read is not None
            certificates = read[0]
            for row, witness in enumerate(certificates.witness):
                index = certificates.index[row]
                if witness is None or index not in standing:
                    continue
                point = torch.from_numpy(np.frombuffer(witness, "<f4").copy()).view(1, 1, 8, 8)
                clean = split.x[split.index == int(index)]
                logits = model(point)[0]
                label = int(certificates.label[row])
                taken = int(logits.argmax())
                rows.append(
                    {
                        "model": spec.name,
                        "method": about["method"]["name"],
                        "epsilon": about["threat"]["epsilon"],
                        "index": int(index),
                        "label": label,
                        "taken for": taken,
                        "margin": round(float(logits[label] - logits[taken]), 6),
                        "distance": round(float((point - clean).abs().max()), 7),
                        "witness": " ".join(f"{pixel:.9g}" for pixel in point.flatten().tolist()),
                    }
                )
    write_csv(stem.with_suffix(".csv"), pd.DataFrame(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    main()
