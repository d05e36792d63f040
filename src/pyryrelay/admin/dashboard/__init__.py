"""The dashboard: a page that shows a running relay, live. What it loads is in ``assets``."""
