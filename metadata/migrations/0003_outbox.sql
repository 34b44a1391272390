-- What must be published because of what was committed: a chat's change to CHATS, a user's to INVALIDATIONS.
-- The rows of a chat are also the history that the fan-out asks who was in it at which sequence.
CREATE TABLE outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Exactly one of the two: whose change it is.
    chat_id uuid REFERENCES chats,
    user_id text COLLATE "C" REFERENCES users,
    version bigint NOT NULL,
    -- The change of the chat, with all its participants after it.
    change jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The stream sequence it was published at; NULL until then.
    seq bigint,
    sent_at timestamptz,
    -- When nothing but history: a chat's row once its successor is published, a user's once it is itself.
    superseded_at timestamptz,
    UNIQUE (chat_id, version),
    UNIQUE (user_id, version),
    CHECK (num_nonnulls(chat_id, user_id) = 1),
    CHECK ((chat_id IS NULL) = (change IS NULL)),
    CHECK ((seq IS NULL) = (sent_at IS NULL))
);

CREATE INDEX outbox_unsent ON outbox (created_at) WHERE seq IS NULL;
CREATE INDEX outbox_chat_seq ON outbox (chat_id, seq) WHERE chat_id IS NOT NULL;
CREATE INDEX outbox_superseded ON outbox (superseded_at) WHERE superseded_at IS NOT NULL;
