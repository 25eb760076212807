use std::collections::BTreeSet;
use std::fmt::Write;

/// Clients to import, each with a phone of its own.
#[derive(Clone, Default)]
pub struct Audience {
    lines: String,
    phones: BTreeSet<i64>,
}

impl Audience {
    /// `n` clients with this code and tag.
    pub fn of(n: usize, operator_code: i64, tag: &str) -> Self {
        Self::default().and(n, operator_code, tag)
    }

    /// Adds more.
    pub fn and(mut self, n: usize, operator_code: i64, tag: &str) -> Self {
        for _ in 0..n {
            // Far apart, so that a search for one doesn't meet another number by chance.
            let phone = 70_000_003_571 + i64::try_from(self.phones.len()).unwrap() * 7_919;
            self.phones.insert(phone);
            writeln!(self.lines, "{phone},{operator_code},{tag}").unwrap();
        }
        self
    }

    /// Adds `n` clients over these codes in turn. Their phones have their codes, by which the provider tells operators.
    pub fn over(mut self, n: usize, operator_codes: &[i64], tag: &str) -> Self {
        for (number, code) in (0..n).zip(operator_codes.iter().cycle()) {
            let own = i64::try_from(number).unwrap() * 7_919 % 10_000_000;
            let phone = 70_000_000_000 + code * 10_000_000 + own;
            assert!(self.phones.insert(phone), "it has a client with this phone");
            writeln!(self.lines, "{phone},{code},{tag}").unwrap();
        }
        self
    }

    pub(crate) fn csv(&self) -> String {
        format!("phone_number,mobile_operator_code,tag\n{}", self.lines)
    }

    /// How many clients there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.phones.len()
    }

    /// Their phones.
    pub fn phones(&self) -> &BTreeSet<i64> {
        &self.phones
    }
}
