use crate::{Audience, Program, World};

impl World {
    /// No phone, text or token is in any log, metric, key or header.
    pub async fn assert_secrecy(&self, audience: &Audience, texts: &[&str], running: &[&Program]) {
        let mut places = vec![("keys and headers".to_owned(), self.keys_and_headers())];
        for entry in std::fs::read_dir(self.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                places.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
        assert!(places.len() > 1, "there are logs to search");
        for program in running {
            places.push((format!("metrics of {}", program.name), program.metrics().await));
        }
        for (place, content) in places {
            for secret in texts.iter().chain([&self.token()]) {
                assert!(!content.contains(secret), "{place} holds a text or the token");
            }
            let runs = content.split(|character: char| !character.is_ascii_digit());
            for number in runs.filter(|run| run.len() == 11) {
                assert!(!audience.phones().contains(&number.parse().unwrap()), "{place} holds a phone number");
            }
        }
    }
}
