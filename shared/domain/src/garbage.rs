//! How many records that can't be decoded a reader may pass by itself: a few are somebody's mistake, many are a bad deploy,
//! whose records must stay where they are until a person has looked.

/// So many among the last [`SPAN`] offsets of a partition stop its reader. A hundred in a row are that, and so is 1 %.
pub const LIMIT: usize = 100;
/// How far back garbage counts.
pub const SPAN: i64 = 10_000;

/// What is done with a run of garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is dead-lettered, and the reader goes on.
    Pass,
    /// The reader stops before it.
    Stop {
        /// How much garbage there is among the last [`SPAN`] offsets, the run included.
        garbage: usize,
    },
}

/// Reviews a run of garbage. `earlier` is the garbage among the [`SPAN`] offsets before it, or the last `LIMIT - 1` of that;
/// both are in order. Garbage at offsets below `permitted` counts for nothing: somebody has looked at it.
///
/// This depends on the log and the permission only. So whoever reads the partition next comes to the same ruling, and
/// where a run is cut makes no difference to how much is passed.
pub fn review(earlier: &[i64], run: &[i64], permitted: i64) -> Ruling {
    let counted: Vec<i64> = earlier.iter().chain(run).copied().filter(|&offset| offset >= permitted).collect();
    let within = |from: i64, to: i64| to - from < SPAN;
    if !counted.windows(LIMIT).any(|window| within(window[0], window[LIMIT - 1])) {
        return Ruling::Pass;
    }
    let last = counted[counted.len() - 1];
    Ruling::Stop { garbage: counted.iter().filter(|&&offset| within(offset, last)).count() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hundred_among_ten_thousand_stop_the_reader() {
        let every = |step: i64, n: i64| (0..n).map(|i| i * step).collect::<Vec<i64>>();
        let cases = [
            ("one", vec![], vec![7], 0, Ruling::Pass),
            ("99 in a row", vec![], every(1, 99), 0, Ruling::Pass),
            ("100 in a row", vec![], every(1, 100), 0, Ruling::Stop { garbage: 100 }),
            ("100 in a row, read in two runs", every(1, 60), (60..100).collect(), 0, Ruling::Stop { garbage: 100 }),
            ("1 %", every(100, 99), vec![9_900], 0, Ruling::Stop { garbage: 100 }),
            ("2 %", every(50, 99), vec![4_950], 0, Ruling::Stop { garbage: 100 }),
            ("less than 1 %", every(102, 99), vec![10_098], 0, Ruling::Pass),
            ("99 long ago", every(1, 99), vec![50_000], 0, Ruling::Pass),
            ("what somebody has looked at", every(1, 99), vec![99], 100, Ruling::Pass),
            ("the first of it", every(1, 99), vec![99], 1, Ruling::Pass),
            ("a hundred behind that", every(1, 99), (99..110).collect(), 10, Ruling::Stop { garbage: 100 }),
        ];
        for (name, earlier, run, permitted, expected) in cases {
            assert_eq!(review(&earlier, &run, permitted), expected, "{name}");
        }
    }

    /// A reader that ends at any moment, and whose successor knows nothing but the log and where it was.
    fn passed(garbage: &[i64], runs: &[usize], permitted: i64) -> usize {
        let (mut passed, mut runs) = (0, runs.iter().cycle());
        while passed < garbage.len() {
            let end = (passed + runs.next().unwrap()).min(garbage.len());
            let run = &garbage[passed..end];
            let looked_back = &garbage[passed.saturating_sub(LIMIT - 1)..passed];
            let earlier: Vec<i64> = looked_back.iter().copied().filter(|offset| run[0] - offset < SPAN).collect();
            if review(&earlier, run, permitted) != Ruling::Pass {
                break;
            }
            passed = end;
        }
        passed
    }

    proptest! {
        #[test]
        fn of_ten_thousand_offsets_a_hundred_are_never_passed_however_often_the_reader_begins_anew(
            gaps in prop::collection::vec(1i64..300, 1..600),
            runs in prop::collection::vec(1usize..=LIMIT, 1..20),
            permitted in prop::sample::select(vec![0i64, 3_000, 20_000]),
        ) {
            let garbage: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let passed = passed(&garbage, &runs, permitted);
            let counted: Vec<i64> = garbage[..passed].iter().copied().filter(|&offset| offset >= permitted).collect();
            prop_assert!(counted.windows(LIMIT).all(|window| window[LIMIT - 1] - window[0] >= SPAN));
            // And it stops for nothing less: the hundredth is at most a run away.
            let reached: Vec<i64> =
                garbage[..(passed + LIMIT).min(garbage.len())].iter().copied().filter(|&at| at >= permitted).collect();
            let full = reached.windows(LIMIT).any(|window| window[LIMIT - 1] - window[0] < SPAN);
            prop_assert!(passed == garbage.len() || full);
        }
    }
}
