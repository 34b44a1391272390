//! The queries of a version, with the types that its code was compiled for.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{
    AssertSqlSafe, Column as _, Either, Executor as _, SqlSafeStr as _, Statement as _, TypeInfo as _,
    raw_sql,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Query {
    #[serde(rename = "query")]
    pub(super) text: String,
    /// Types, as Postgres calls them.
    parameters: Vec<String>,
    /// Names and types.
    columns: Vec<(String, String)>,
}

impl Query {
    pub(super) fn recorded(text: &str) -> Vec<Self> {
        serde_json::from_str(text).expect("a list of queries is recorded")
    }

    /// Asks Postgres.
    async fn prepared(query: &str, connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let statement = connection
            .prepare(AssertSqlSafe(query.to_owned()).into_sql_str())
            .await?;
        let parameters = match statement.parameters() {
            Some(Either::Left(types)) => types.iter().map(|one| one.name().to_owned()).collect(),
            Some(Either::Right(_)) | None => unreachable!("Postgres names the types"),
        };
        let columns = statement.columns().iter();
        Ok(Self {
            text: query.to_owned(),
            parameters,
            columns: columns
                .map(|column| (column.name().to_owned(), column.type_info().name().to_owned()))
                .collect(),
        })
    }

    /// Whether it can still be prepared, with the same types, and planned. A query that is planned is not executed.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), String> {
        // A failure would end the transaction that this may run in.
        let mut within = sqlx::Connection::begin(connection)
            .await
            .map_err(|error| error.to_string())?;
        let now = Self::prepared(&self.text, &mut within).await;
        let result = match now {
            Err(error) => Err(error.to_string()),
            Ok(now) if now != *self => Err(format!("{:?} -> {:?}", now.parameters, now.columns)),
            Ok(_) => self.plan(&mut within).await,
        };
        within.rollback().await.map_err(|error| error.to_string())?;
        result
    }

    async fn plan(&self, connection: &mut PgConnection) -> Result<(), String> {
        // What is prepared stays when planning it fails, and its name is taken.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let nulls = vec!["NULL"; self.parameters.len()].join(", ");
        let arguments = if nulls.is_empty() {
            nulls
        } else {
            format!("({nulls})")
        };
        let text = format!(
            "SET LOCAL plan_cache_mode = force_generic_plan;
             PREPARE recorded_{number} AS {};
             EXPLAIN EXECUTE recorded_{number}{arguments};
             DEALLOCATE recorded_{number}",
            self.text
        );
        let planned = raw_sql(AssertSqlSafe(text)).execute(connection).await;
        planned.map(drop).map_err(|error| error.to_string())
    }

    /// Those of the macros, sorted, as JSON.
    pub(super) async fn of_this_version(connection: &mut PgConnection) -> String {
        #[derive(Deserialize)]
        struct Described {
            query: String,
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
        let mut queries = Vec::new();
        for file in std::fs::read_dir(folder).expect("the queries are described") {
            let text = std::fs::read(file.expect("the folder can be read").path()).expect("it can be read");
            let described: Described = serde_json::from_slice(&text).expect("sqlx wrote it");
            let query = Self::prepared(&described.query, connection).await;
            queries.push(query.expect("it was compiled against these tables"));
        }
        queries.sort_by(|a, b| a.text.cmp(&b.text));
        let mut text = serde_json::to_string_pretty(&queries).expect("it has string names");
        text.push('\n');
        text
    }
}
