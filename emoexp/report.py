"""Put the finished cells of a sweep together: python -m emoexp.report ablation=activation"""
