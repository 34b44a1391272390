-- A user appears here when a first client registers. Whoever was only written to has no row.
CREATE TABLE users (
    -- "C": ids are bytes to us, and no collation of the operating system may reorder an index.
    user_id text COLLATE "C" PRIMARY KEY CHECK (user_id ~ '^[ -~]{1,128}$'),
    -- Counts the changes of the user's clients: the order of the invalidations, and their message ids.
    version bigint NOT NULL DEFAULT 0,
    suspended_at timestamptz,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every client there ever was: removed ids are refused for ever.
CREATE TABLE clients (
    client_id uuid PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL REFERENCES users,
    state text NOT NULL CHECK (state IN ('active', 'idle', 'removed')),
    name text CHECK (char_length(name) BETWEEN 1 AND 100),
    -- Reads the entries under the reserved client `first`, besides its own.
    heir boolean NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX clients_active_of_user ON clients (user_id) WHERE state = 'active';
CREATE INDEX clients_active_unseen ON clients (last_seen_at) WHERE state = 'active';
-- The code chooses at most one heir; this is what would tell us that it does not.
CREATE UNIQUE INDEX clients_one_heir ON clients (user_id) WHERE state = 'active' AND heir;
