//! What tables demand of whoever writes to them, and promise to whoever reads them.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgConnection;

/// A column of a table.
type ColumnId = (String, String);

/// See the module.
#[derive(Debug)]
pub(super) struct Catalog {
    columns: BTreeMap<ColumnId, Column>,
    /// Checks, keys, foreign keys, unique indexes: the table, what is demanded, of which columns.
    demands: BTreeSet<(String, String, Vec<String>)>,
}

#[derive(Debug)]
struct Column {
    not_null: bool,
    /// Also where the server makes the value.
    has_default: bool,
}

impl Catalog {
    pub(super) async fn of(connection: &mut PgConnection) -> Self {
        let columns: Vec<(String, String, bool, bool)> = sqlx::query_as(
            "SELECT c.relname::text, a.attname::text, a.attnotnull,
                    a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> ''
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
               AND a.attnum > 0 AND NOT a.attisdropped",
        )
        .fetch_all(&mut *connection)
        .await
        .expect("catalogs can be read");
        let demands = sqlx::query_as(
            "SELECT c.relname::text, pg_get_constraintdef(k.oid),
                    ARRAY(SELECT attname::text FROM pg_attribute
                          WHERE attrelid = c.oid AND attnum = ANY (k.conkey) ORDER BY attnum)
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
             WHERE c.relnamespace = 'public'::regnamespace AND k.contype IN ('c', 'f', 'p', 'u', 'x')
             UNION ALL
             SELECT c.relname::text, pg_get_indexdef(i.indexrelid),
                    ARRAY(SELECT attname::text FROM pg_attribute
                          WHERE attrelid = c.oid AND attnum = ANY (i.indkey::smallint[]) ORDER BY attnum)
             FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
             WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique",
        )
        .fetch_all(&mut *connection)
        .await
        .expect("catalogs can be read");
        let columns = columns.into_iter().map(|(table, column, not_null, has_default)| {
            let says = Column {
                not_null,
                has_default,
            };
            ((table, column), says)
        });
        Self {
            columns: columns.collect(),
            demands: demands.into_iter().collect(),
        }
    }

    /// What whoever knows these tables suffers from `now`.
    pub(super) fn breaches(&self, now: &Self) -> Vec<String> {
        let tables: BTreeSet<&str> = self.columns.keys().map(|(table, _)| &**table).collect();
        let mut breaches = Vec::new();
        for (table, column) in self.columns.keys().filter(|id| !now.columns.contains_key(*id)) {
            breaches.push(format!("{table}.{column} is gone"));
        }
        for ((table, column), says) in now
            .columns
            .iter()
            .filter(|((table, _), _)| tables.contains(&**table))
        {
            match self.columns.get(&(table.clone(), column.clone())) {
                None if says.not_null && !says.has_default => {
                    breaches.push(format!("{table}.{column} is new and has to be given"));
                }
                Some(before) if says.not_null && !before.not_null => {
                    breaches.push(format!("{table}.{column} may not be NULL any more"));
                }
                Some(before) if before.not_null && !says.not_null => {
                    breaches.push(format!("{table}.{column} can be NULL now"));
                }
                _ => {}
            }
        }
        for demand @ (table, what, columns) in &now.demands {
            let known = |column: &String| self.columns.contains_key(&(table.clone(), column.clone()));
            if tables.contains(&**table) && !self.demands.contains(demand) && columns.iter().any(known) {
                breaches.push(format!("{table} demands {what}"));
            }
        }
        breaches
    }
}
