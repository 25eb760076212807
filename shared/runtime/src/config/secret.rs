use std::fmt;

/// A value that is never shown: `Debug` and `Display` print `***`.
///
/// A setting of this type is a secret everywhere: it may come from a file (`…_FILE`), and is redacted in errors and
/// by `herald config`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one who must present it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `***`, but for a URL with a user: which server and database it is may be seen.
pub(super) fn redact(value: &str) -> String {
    redact_url(value).unwrap_or_else(|| "***".to_owned())
}

fn redact_url(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once("://")?;
    // The last `@`: a password may hold one that wasn't escaped. Without any, nothing tells a host from a password.
    let (login, server) = rest.rsplit_once('@')?;
    let login = match login.split_once(':') {
        Some((user, _)) => format!("{user}:***"),
        None => login.to_owned(),
    };
    // Parameters may hold a password too.
    let server = match server.split_once('?') {
        Some((server, _)) => format!("{server}?***"),
        None => server.to_owned(),
    };
    Some(format!("{scheme}://{login}@{server}"))
}

/// The value, but for a login in front of an address: where none belongs, somebody may have put one all the same.
pub(super) fn without_login(value: &str) -> String {
    let (scheme, rest) = value.split_at(value.find("://").map_or(0, |at| at + 3));
    match rest.rsplit_once('@') {
        Some((_, address)) => format!("{scheme}***@{address}"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_where_none_belongs_is_hidden() {
        let cases = [
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090"),
            ("http://t0ken@provider", "http://***@provider"),
            ("https://user:p@ss@provider/x", "https://***@provider/x"),
            ("user:pw@provider", "***@provider"),
        ];
        for (value, shown) in cases {
            assert_eq!(without_login(value), shown);
        }
    }

    #[test]
    fn a_secret_is_seen_only_when_exposed() {
        let token = Secret::from("t0ken".to_owned());
        assert_eq!(format!("{token} {token:?}"), "*** ***");
        assert_eq!(token.expose(), "t0ken");
    }

    #[test]
    fn of_a_url_the_server_is_shown_and_nothing_else_of_any_secret() {
        let cases = [
            ("t0ken", "***"),
            ("", "***"),
            ("postgres://herald@127.0.0.1:15432/herald", "postgres://herald@127.0.0.1:15432/herald"),
            ("postgres://herald:pw@db:5432/herald", "postgres://herald:***@db:5432/herald"),
            ("postgres://herald:p@w/?@db/herald", "postgres://herald:***@db/herald"),
            ("postgres://herald@db/herald?password=pw", "postgres://herald@db/herald?***"),
            ("postgres://herald:pw", "***"),
            ("postgres://db/herald?password=pw", "***"),
        ];
        for (value, shown) in cases {
            assert_eq!(redact(value), shown, "{value}");
        }
    }
}
