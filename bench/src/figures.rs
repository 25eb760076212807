use serde_json::{Value, json};

use crate::build::Build;

/// What one run measured, by name; the name bears the unit.
#[derive(Default)]
pub(crate) struct Figures(Vec<(String, f64)>);

impl Figures {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    /// To see while it runs that all is well.
    pub(crate) fn line(&self) -> String {
        let shown = ["messages_per_second", "first_call_ms", "cpu_us_per_message_sum"];
        let shown = self.0.iter().filter(|(name, _)| shown.contains(&name.as_str()));
        shown.map(|(name, value)| format!("{name} {value:.0}")).collect::<Vec<_>>().join(", ")
    }

    /// Rounded: a digit behind the point is more than two runs agree on.
    pub(crate) fn json(&self) -> Value {
        self.0.iter().map(|(name, value)| (name.clone(), json!((value * 10.0).round() / 10.0))).collect()
    }
}

/// A line a figure: of each build median and range, and the ratio of this tree's median to the base's.
pub(crate) fn print(builds: &[Build], measured: &[Vec<Figures>]) {
    print!("\n{:<32}", "median (least to most)");
    for build in builds {
        print!("{:>34}", format!("{} {}", build.name, build.commit));
    }
    println!("{}", if builds.len() > 1 { "   this/base" } else { "" });
    for (index, (name, _)) in measured[0][0].0.iter().enumerate() {
        print!("{name:<32}");
        let mut medians = vec![];
        for runs in measured {
            let mut values: Vec<f64> = runs.iter().map(|run| run.0[index].1).collect();
            values.sort_by(f64::total_cmp);
            let (least, most) = (values[0], values[values.len() - 1]);
            let median = median(&values);
            print!("{:>34}", format!("{median:.1} ({least:.1} to {most:.1})"));
            medians.push(median);
        }
        match medians[..] {
            [this, base] => println!("{:>12.3}", this / base),
            _ => println!(),
        }
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_runs_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
