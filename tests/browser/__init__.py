"""The dashboard in a real browser: a headless Chromium of Debian, driven by playwright."""
