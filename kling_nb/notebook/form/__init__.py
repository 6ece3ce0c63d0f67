"""The form: its fields, its verdict, its view.

Read first: `form.py`.
"""
