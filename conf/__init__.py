"""The configuration, installed as emoexp.conf: every option of every group is one file here."""
