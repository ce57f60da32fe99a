"""The measured side: the reference torch transformer that runs real training steps from the same specs as the forecast.

It may import perfmodel.spec and the schemas of records, and nothing that predicts (DESIGN, idea 5; enforced by import-linter).
The forecast is in perfmodel/.
"""
