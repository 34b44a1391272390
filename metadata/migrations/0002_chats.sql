CREATE TABLE chats (
    chat_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('direct', 'group')),
    name text CHECK (char_length(name) BETWEEN 1 AND 100),
    -- Grows by one with each change of the participants; each version has a row in the outbox.
    version bigint NOT NULL,
    -- Both sides of a direct chat, sorted: whoever asks, it is the same chat.
    direct_low text COLLATE "C",
    direct_high text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at timestamptz,
    UNIQUE (direct_low, direct_high),
    CHECK (direct_low < direct_high),
    CHECK ((kind = 'direct') = (direct_low IS NOT NULL)),
    CHECK ((kind = 'direct') = (direct_high IS NOT NULL)),
    CHECK (kind = 'group' OR (name IS NULL AND closed_at IS NULL))
);

-- Users need not exist: people write to those who have not connected yet.
CREATE TABLE participants (
    chat_id uuid NOT NULL REFERENCES chats,
    user_id text COLLATE "C" NOT NULL CHECK (user_id ~ '^[ -~]{1,128}$'),
    role text NOT NULL CHECK (role IN ('admin', 'member')),
    -- The lowest has been in the chat for longest.
    standing bigint NOT NULL,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, user_id),
    UNIQUE (chat_id, standing)
);

CREATE INDEX participants_by_user ON participants (user_id, chat_id);

-- What was asked under which id, so that it is done once. Forgotten after 24 hours.
CREATE TABLE requests (
    user_id text COLLATE "C" NOT NULL,
    request_id uuid NOT NULL,
    -- A hash of what was asked: the same id with another content is a mistake of the caller.
    fingerprint bigint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The answer. NULL only inside the transaction that is finding it.
    chat_id uuid,
    version bigint,
    done boolean,
    PRIMARY KEY (user_id, request_id)
);

CREATE INDEX requests_by_age ON requests (requested_at);
