"""Theme and style of the page: the palette of `chart_style` as CSS variables, plus `style.css`."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from sentiment_core.chart_style import PALETTE, theme_css

SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

GROUND = {
    "page": ("#FFFFFF", "#10141B"),
    "card": ("#F6F7F9", "#181E27"),
    "raised": ("#FFFFFF", "#1F2632"),
    "strong": ("#1B2430", "#E6EAF0"),
    "on-strong": ("#FFFFFF", "#10141B"),
}
"""Backgrounds in light and dark: one step of grey for cards, and the button that matters."""


def variables_css() -> str:
    """`--base`, `--fine`, … in the light and in the dark form."""
    pairs = {name.replace("_", "-"): tuple(tint) for name, tint in PALETTE.items()} | GROUND
    light = "".join(f"--q-{name}:{pair[0]};" for name, pair in pairs.items())
    dark = "".join(f"--q-{name}:{pair[1]};" for name, pair in pairs.items())
    return f":root{{{light}}}\n.dark{{{dark}}}\n"


def css() -> str:
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return variables_css() + style + theme_css()


def _both(**light_and_dark: tuple[str, str]) -> dict[str, str]:
    """Theme settings for both modes from {name: (light, dark)}."""
    out = {}
    for name, (light, dark) in light_and_dark.items():
        out[name] = light
        out[f"{name}_dark"] = dark
    return out


def theme() -> gr.themes.Base:
    """Neutral, hairline borders, 8 px corners, system fonts (nothing is fetched for them)."""
    ink, muted, line = PALETTE["ink"], PALETTE["muted"], PALETTE["line"]
    page, card, raised, strong, on_strong = (
        GROUND[name] for name in ("page", "card", "raised", "strong", "on-strong")
    )
    field = ("#B8C0CC", "#4A5566")
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.slate,
        secondary_hue=gr.themes.colors.slate,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=SYSTEM_FONTS,
        font_mono=MONO_FONTS,
    )
    return base.set(
        **_both(
            body_background_fill=page,
            body_text_color=ink,
            body_text_color_subdued=muted,
            background_fill_primary=page,
            background_fill_secondary=card,
            border_color_primary=line,
            border_color_accent=strong,
            color_accent_soft=card,
            block_background_fill=page,
            block_border_color=line,
            block_label_background_fill=page,
            block_label_text_color=muted,
            block_title_text_color=ink,
            block_info_text_color=muted,
            panel_background_fill=page,
            panel_border_color=line,
            input_background_fill=raised,
            input_border_color=field,
            input_border_color_focus=strong,
            input_placeholder_color=muted,
            button_primary_background_fill=strong,
            button_primary_background_fill_hover=muted,
            button_primary_border_color=strong,
            button_primary_text_color=on_strong,
            button_secondary_background_fill=raised,
            button_secondary_background_fill_hover=card,
            button_secondary_border_color=line,
            button_secondary_text_color=ink,
            checkbox_background_color=raised,
            checkbox_background_color_selected=(strong[0], PALETTE["base"].light),
            checkbox_border_color=field,
            checkbox_border_color_selected=strong,
            checkbox_label_background_fill=raised,
            checkbox_label_background_fill_hover=card,
            checkbox_label_background_fill_selected=card,
            checkbox_label_border_color=line,
            checkbox_label_border_color_selected=strong,
            checkbox_label_text_color=ink,
            checkbox_label_text_color_selected=ink,
            slider_color=muted,
            link_text_color=PALETTE["positive"],
            table_border_color=line,
            table_even_background_fill=page,
            table_odd_background_fill=page,
            table_text_color=ink,
            table_row_focus=card,
            loader_color=muted,
        ),
        color_accent=PALETTE["muted"].light,
        block_shadow="none",
        block_shadow_dark="none",
        button_primary_shadow="none",
        button_secondary_shadow="none",
        input_shadow="none",
        input_shadow_focus="none",
        block_border_width="0px",
        block_padding="0px",
        layout_gap="16px",
        block_radius="8px",
        button_large_radius="8px",
        button_medium_radius="8px",
        button_small_radius="8px",
        input_radius="8px",
        input_border_width="1px",
        checkbox_border_width="1px",
        checkbox_label_border_width="1px",
        button_border_width="1px",
        block_label_border_width="0px",
        checkbox_border_radius="4px",
    )
