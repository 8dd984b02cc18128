"""Where rows come from: one small reader a source, each giving flat records with their places, none believing any."""
