//! Results as a picture (SVG): panels one below the other, each with lines over a logarithmic axis of milliseconds.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use plotters::prelude::*;

use super::latency::CurvePoint;
use super::series::Point;

/// Pixels.
const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 400;
const HEADING_HEIGHT: u32 = 40;
/// Told apart by people with any sight, and in print (Okabe and Ito).
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];
const FONT: &str = "sans-serif";

/// One diagram.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    title: &'static str,
    axis: Axis,
    lines: Vec<Line>,
    shade: Option<Shade>,
}

/// What the horizontal axis shows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Axis {
    Seconds,
    Rate,
    /// Percentiles, by how many nines they have: each is as far from the last as that from the one before.
    Nines,
}

#[derive(Clone, Debug)]
struct Line {
    name: String,
    /// Pieces between which nothing was measured.
    pieces: Vec<Vec<(f64, f64)>>,
}

/// A stretch of the horizontal axis that is not like the rest.
#[derive(Clone, Debug)]
struct Shade {
    name: &'static str,
    from: f64,
    to: f64,
}

impl Panel {
    /// Percentiles of delivery over time.
    pub(crate) fn over_time(points: &[Point], warmup_seconds: f64) -> Self {
        let line = |name: &str, value: fn(&Point) -> Option<f64>| {
            let pieces = points.split(|point| value(point).is_none());
            let pieces = pieces.map(|piece| {
                let middle = |point: &Point| point.second as f64 + 0.5;
                let place = |point| Some((middle(point), value(point)?));
                piece.iter().filter_map(place).collect()
            });
            Line {
                name: name.to_owned(),
                pieces: pieces.collect(),
            }
        };
        Self {
            title: "Latency of delivery over time",
            axis: Axis::Seconds,
            lines: vec![
                line("p50 of a second", |point| point.p50),
                line("p99 of a second", |point| point.p99),
            ],
            shade: (warmup_seconds > 0.0).then_some(Shade {
                name: "not measured",
                from: 0.0,
                to: warmup_seconds,
            }),
        }
    }

    /// Every percentile of some latencies.
    pub(crate) fn percentiles(curves: &[(&str, &[CurvePoint])]) -> Self {
        let lines = curves.iter().map(|(name, curve)| Line {
            name: (*name).to_owned(),
            pieces: vec![
                curve
                    .iter()
                    .map(|point| (nines(point.quantile), point.milliseconds))
                    .collect(),
            ],
        });
        Self {
            title: "Latency by percentile",
            axis: Axis::Nines,
            lines: lines.collect(),
            shade: None,
        }
    }

    /// Lines over messages a second.
    pub(crate) fn over_rate(lines: Vec<(String, Vec<(f64, f64)>)>) -> Self {
        let lines = lines.into_iter().map(|(name, points)| Line {
            name,
            pieces: vec![points],
        });
        Self {
            title: "Latency of delivery by rate",
            axis: Axis::Rate,
            lines: lines.collect(),
            shade: None,
        }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|line| &line.pieces).flatten().copied()
    }

    /// From where to where each axis goes: to the last point, and to full powers of ten.
    fn ranges(&self) -> ((f64, f64), (f64, f64)) {
        let (mut right, mut low, mut high) = (0.0_f64, f64::INFINITY, 0.0_f64);
        for (x, y) in self.points() {
            (right, low, high) = (right.max(x), low.min(y), high.max(y));
        }
        let right = match self.axis {
            Axis::Nines => right.ceil(),
            Axis::Seconds => right.round(),
            Axis::Rate => right * 1.05,
        };
        // No latency is measured below a microsecond.
        let (low, high) = (low.clamp(1e-3, 1e6), high.clamp(1e-3, 1e6));
        let (floor, ceiling) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
        ((0.0, right.max(1.0)), (floor, ceiling.max(floor * 10.0)))
    }
}

impl Axis {
    const fn description(self) -> &'static str {
        match self {
            Self::Seconds => "seconds since the first message",
            Self::Rate => "messages a second",
            Self::Nines => "percentile",
        }
    }

    fn label(self, value: f64) -> String {
        match self {
            Self::Nines => percentile_label(value),
            Self::Seconds | Self::Rate => format!("{value}"),
        }
    }
}

/// How many nines a quantile has: 0.9 has one, 0.99 two.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// `99.9 %` of three nines.
fn percentile_label(nines: f64) -> String {
    let whole = nines.round();
    if (nines - whole).abs() > 1e-6 {
        return String::new();
    }
    match whole as usize {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

/// Draws panels under a heading into a file.
pub(crate) fn write_plot(path: &Path, heading: &str, panels: &[Panel]) -> anyhow::Result<()> {
    let mut text = String::new();
    draw(&mut text, heading, panels)
        .map_err(|error| anyhow!("{error}"))
        .context("the plot cannot be drawn")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn draw(text: &mut String, heading: &str, panels: &[Panel]) -> Result<(), Box<dyn std::error::Error>> {
    let height = HEADING_HEIGHT + PANEL_HEIGHT * panels.len() as u32;
    let root = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let rest = root.margin(8, 0, 0, 0).titled(heading, (FONT, 18))?;
    for (panel, area) in panels.iter().zip(rest.split_evenly((panels.len(), 1))) {
        let ((left, right), (low, high)) = panel.ranges();
        let mut chart = ChartBuilder::on(&area)
            .caption(panel.title, (FONT, 16))
            .margin(12)
            .margin_right(40)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(left..right, (low..high).log_scale())?;
        if let Some(Shade { name, from, to }) = &panel.shade {
            let grey = BLACK.mix(0.08);
            let corners = [(*from, low), (to.min(right), high)];
            chart
                .draw_series([Rectangle::new(corners, grey.filled())])?
                .label(*name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 20, y + 5)], grey.filled()));
        }
        let labels = match panel.axis {
            Axis::Nines => right as usize + 1,
            Axis::Seconds | Axis::Rate => 12,
        };
        chart
            .configure_mesh()
            .x_desc(panel.axis.description())
            .y_desc("milliseconds")
            .x_labels(labels)
            .x_max_light_lines(5)
            .y_labels(12)
            .x_label_formatter(&|value| panel.axis.label(*value))
            .y_label_formatter(&|value| format!("{value}"))
            .light_line_style(BLACK.mix(0.06))
            .bold_line_style(BLACK.mix(0.2))
            .axis_desc_style((FONT, 14))
            .label_style((FONT, 13))
            .draw()?;
        for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(2);
            for (index, piece) in line.pieces.iter().enumerate() {
                let drawn = chart.draw_series(LineSeries::new(piece.iter().copied(), style))?;
                if index == 0 {
                    drawn
                        .label(&line.name)
                        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
                }
            }
        }
        let corner = match panel.axis {
            Axis::Seconds => SeriesLabelPosition::UpperRight,
            Axis::Rate | Axis::Nines => SeriesLabelPosition::UpperLeft,
        };
        chart
            .configure_series_labels()
            .position(corner)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 13))
            .draw()?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::latency::Latencies;
    use super::*;

    #[test]
    fn percentiles_are_named() {
        for (quantile, label) in [
            (0.0, "0 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (0.99999, "99.999 %"),
        ] {
            assert_eq!(percentile_label(nines(quantile)), label);
        }
        assert_eq!(percentile_label(0.5), "");
    }

    #[test]
    fn silence_is_a_gap() {
        let point = |second, p50| Point {
            second,
            deliveries: 0,
            p50,
            p99: p50,
            max: p50,
        };
        let points = [point(0, Some(3.0)), point(1, None), point(2, Some(40.0))];
        let panel = Panel::over_time(&points, 1.0);
        assert_eq!(panel.lines[0].pieces, [[(0.5, 3.0)], [(2.5, 40.0)]]);
        assert_eq!(panel.ranges(), ((0.0, 3.0), (1.0, 100.0)));
    }

    #[test]
    fn a_plot_names_its_lines_also_when_nothing_was_measured() {
        let mut latencies = Latencies::default();
        let panels = |latencies: &Latencies| {
            let curve = latencies.curve();
            let percentiles = Panel::percentiles(&[("accept", &curve), ("delivery", &curve)]);
            [Panel::over_time(&[], 0.0), percentiles]
        };
        let mut text = String::new();
        draw(&mut text, "nothing", &panels(&latencies)).expect("possible");
        for milliseconds in 1..1000 {
            latencies.record(Duration::from_millis(milliseconds));
        }
        text.clear();
        draw(&mut text, "something", &panels(&latencies)).expect("possible");
        for word in ["something", "accept", "delivery", "99 %", "milliseconds"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
