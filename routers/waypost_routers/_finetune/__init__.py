"""Pretrained models that routers fine-tune."""
