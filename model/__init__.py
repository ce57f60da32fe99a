"""The measured side: room for the reference torch transformer that runs real training steps from the same specs.

It may import perfmodel.spec and perfmodel.evidence.records, and nothing that predicts (DESIGN, idea 5; enforced by
import-linter). The forecast is in perfmodel/.
"""
