"""The table of all optimisers and a page for each, made from their rules: python -m handbook"""
