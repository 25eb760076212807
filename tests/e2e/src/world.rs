use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tempfile::TempDir;

use crate::api::Api;
use crate::audience::Audience;
use crate::program::{Program, command, free_addr};
use crate::provider::Provider;

/// A token that nothing else would contain by chance.
const TOKEN: &str = "token-5c1f9a7e2b";

/// Tests take Postgres away, too.
const ACQUIRE: Duration = Duration::from_secs(3);

fn database_url(server: &str, database: &str) -> String {
    format!("{}/{database}", server.rsplit_once('/').unwrap().0)
}

async fn create_database(server: &str, name: &str) -> PgPool {
    let mut admin = PgConnection::connect(server).await.unwrap();
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    PgPoolOptions::new().acquire_timeout(ACQUIRE).connect(&database_url(server, name)).await.unwrap()
}

/// What a test asks for beside the defaults.
pub struct Options {
    /// Partitions of every topic; each topic's own count if none.
    pub partitions: Option<u32>,
    /// How the provider behaves: `HERALD_SIM_…`.
    pub provider: Vec<(&'static str, String)>,
    /// Further settings of the programs.
    pub env: Vec<(&'static str, String)>,
    /// A Kafka of the test's own, instead of the shared one.
    pub brokers: Option<String>,
    /// Likewise a Postgres, by its URL.
    pub postgres: Option<String>,
    /// What decides all that is drawn; `HERALD_TEST_SEED` if none, else chance.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { partitions: Some(2), provider: vec![], env: vec![], brokers: None, postgres: None, seed: None }
    }
}

/// One installation: a database, a topic prefix, a provider, and the programs that a test starts.
pub struct World {
    /// Its REST API.
    pub api: Api,
    /// Its database.
    pub db: PgPool,
    /// Its topics.
    pub kafka: kafka::Cluster,
    pub(crate) provider: Provider,
    pub(crate) brokers: String,
    random: Mutex<StdRng>,
    folder: TempDir,
    env: Vec<(String, String)>,
    started: AtomicUsize,
    server_url: String,
    database: String,
}

impl World {
    /// Makes it: the database migrated, the topics there, the provider up, no program started.
    pub async fn new(name: &str, options: Options) -> Self {
        let told = || std::env::var("HERALD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = options.seed.or_else(told).unwrap_or_else(rand::random);
        println!("{name}: HERALD_TEST_SEED={seed}");
        let get =
            |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} isn't set: run the tests by `make test`"));
        let brokers = options.brokers.unwrap_or_else(|| get("HERALD_TEST_KAFKA_BROKERS"));
        let server_url = options.postgres.unwrap_or_else(|| get("HERALD_TEST_DATABASE_URL"));
        let folder = tempfile::Builder::new().prefix(&format!("herald-{name}-")).tempdir().unwrap();
        let unique = format!("{name}_{:08x}", rand::random::<u32>());
        let db = create_database(&server_url, &unique).await;
        let database_url = database_url(&server_url, &unique);

        let mut provider = options.provider;
        provider.push(("HERALD_PROVIDER_TOKEN", TOKEN.to_owned()));
        provider.push(("HERALD_SIM_SEED", seed.to_string()));
        let mut provider = Provider::start(folder.path(), &provider);
        provider.ready().await;

        let api_addr = free_addr();
        let mut env: Vec<(String, String)> = [
            ("DATABASE_URL", database_url.clone()),
            ("HERALD_KAFKA_BROKERS", brokers.clone()),
            ("HERALD_TOPIC_PREFIX", unique.clone()),
            ("HERALD_API_ADDR", api_addr.clone()),
            ("HERALD_PROVIDER_URL", provider.url.clone()),
            ("HERALD_PROVIDER_TOKEN", TOKEN.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        env.extend(options.partitions.map(|n| ("HERALD_TOPIC_PARTITIONS".to_owned(), n.to_string())));
        env.extend(options.env.into_iter().map(|(name, value)| (name.to_owned(), value)));

        let topics = events::topics::Topics::new(&unique, options.partitions);
        let world = Self {
            api: Api::new(&api_addr),
            provider,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            db,
            kafka: kafka::Cluster::new(topics, &brokers, vec![], "e2e"),
            brokers,
            folder,
            env,
            started: AtomicUsize::new(0),
            server_url,
            database: unique,
        };
        for verb in ["migrate", "topics"] {
            world.run(&[verb], &[]).await.unwrap();
        }
        world
    }

    /// Gives it an empty database on another server, and nothing else anew.
    pub async fn move_to(&mut self, server_url: &str) {
        self.db = create_database(server_url, &self.database).await;
        self.server_url = server_url.to_owned();
        self.env.retain(|(name, _)| name != "DATABASE_URL");
        self.env.push(("DATABASE_URL".to_owned(), self.database_url()));
        self.run(&["migrate"], &[]).await.unwrap();
    }

    /// Runs a verb to its end beside everything else, with further settings; answers what it printed, or why it failed.
    pub async fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String, String> {
        let mut command = command("herald", args, &self.env);
        command.envs(env.iter().copied());
        let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said =
            String::from_utf8_lossy(if done.status.success() { &done.stdout } else { &done.stderr }).into_owned();
        if done.status.success() { Ok(said) } else { Err(said) }
    }

    /// Starts a program and waits until it is ready.
    pub async fn start(&self, args: &[&str]) -> Program {
        let mut program = self.start_unready(args);
        program.ready().await;
        program
    }

    /// Starts a program and waits for nothing.
    pub fn start_unready(&self, args: &[&str]) -> Program {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        self.launch("herald", args, &format!("{}-{number}", args[0]), &[])
    }

    /// Starts a program under a name, with further settings, and waits for nothing. One that sends calls the provider by a
    /// port of its own, unless `env` says where the provider is.
    pub fn launch(&self, binary: &str, args: &[&str], name: &str, env: &[(&str, String)]) -> Program {
        const PROVIDER: &str = "HERALD_PROVIDER_URL";
        let mut all = self.env.clone();
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let sends = binary == "herald" && matches!(args[0], "sender" | "all");
        let sender = (sends && env.iter().all(|(name, _)| *name != PROVIDER)).then(|| self.provider.add_sender());
        all.extend(sender.map(|port| (PROVIDER.to_owned(), format!("http://127.0.0.1:{port}"))));
        let mut program = Program::start(binary, args, &all, self.folder.path(), name);
        program.sender = sender;
        program
    }

    /// Loads an audience, all of it.
    pub async fn import(&self, audience: &Audience) {
        self.api.import(audience.csv(), audience.len()).await;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.database
    }

    pub(crate) fn database_url(&self) -> String {
        database_url(&self.server_url, &self.database)
    }

    pub(crate) fn token(&self) -> &'static str {
        TOKEN
    }

    /// A number drawn by the test's seed.
    pub fn random(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().unwrap().random_range(range)
    }

    /// Removes the topics and the database. Not reached by a test that fails: what it left can be looked at.
    pub async fn clean_up(self) {
        kafka::Admin::new(&self.kafka).unwrap().delete_topics().await.unwrap();
        self.db.close().await;
        let mut admin = PgConnection::connect(&self.server_url).await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        admin.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("logs are kept in {}", self.folder.path().display());
            self.folder.disable_cleanup(true);
        }
    }
}
