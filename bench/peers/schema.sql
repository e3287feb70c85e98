-- The table both peers use: what a careful user would write for this data set.
CREATE TABLE people (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    survived boolean NOT NULL,
    passenger_class smallint NOT NULL CHECK (passenger_class BETWEEN 1 AND 3),
    name text NOT NULL,
    sex text NOT NULL CHECK (sex IN ('male', 'female', 'other')),
    age double precision,
    siblings_or_spouses_aboard smallint NOT NULL,
    parents_or_children_aboard smallint NOT NULL,
    fare double precision NOT NULL
);
