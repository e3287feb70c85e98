"""The three routes as a competent FastAPI user writes them: pydantic models, an asyncpg pool, uvicorn on uvloop."""

# FastAPI is installed for the bench only and asyncpg has no types: this file is checked as far as it goes without them.
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

COLUMNS = """uuid, survived, passenger_class AS "passengerClass", name, sex, age,
    siblings_or_spouses_aboard AS "siblingsOrSpousesAboard",
    parents_or_children_aboard AS "parentsOrChildrenAboard", fare"""
SELECT_ONE = f"SELECT {COLUMNS} FROM people WHERE uuid = $1"
SELECT_ALL = f"SELECT {COLUMNS} FROM people ORDER BY id"
INSERT = f"""INSERT INTO people (survived, passenger_class, name, sex, age,
    siblings_or_spouses_aboard, parents_or_children_aboard, fare)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {COLUMNS}"""


class NewPerson(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid")

    survived: bool
    passengerClass: Annotated[int, Field(ge=1, le=3)]  # noqa: N815 - the API's name
    name: Annotated[str, Field(min_length=1, max_length=200)]
    sex: Literal["male", "female", "other"]
    age: Annotated[float, Field(ge=0, le=150)] | None = None
    siblingsOrSpousesAboard: Annotated[int, Field(ge=0, le=100)]  # noqa: N815 - the API's name
    parentsOrChildrenAboard: Annotated[int, Field(ge=0, le=100)]  # noqa: N815 - the API's name
    fare: Annotated[float, Field(ge=0, le=1_000_000)]


class Person(NewPerson):
    """What a client gets."""

    uuid: UUID


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Keep one pool for the life of the worker."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=4, max_size=10) as pool:
        application.state.pool = pool
        yield


app = FastAPI(title="Titanic", lifespan=lifespan)


async def get_pool(request: Request) -> asyncpg.Pool:
    """Give a route the worker's pool."""
    pool: asyncpg.Pool = request.app.state.pool
    return pool


Pool = Annotated[asyncpg.Pool, Depends(get_pool)]


# A dict with response_model is checked once, in compiled code; making a Person first measured up to a tenth slower.
@app.get("/people", response_model=list[Person])
async def list_people(pool: Pool) -> list[dict[str, Any]]:
    """Return every person in the data set's order."""
    return [dict(row) for row in await pool.fetch(SELECT_ALL)]


@app.get("/people/{person_id}", response_model=Person)
async def read_person(person_id: UUID, pool: Pool) -> dict[str, Any]:
    """Return one person."""
    row = await pool.fetchrow(SELECT_ONE, person_id)
    if row is None:
        raise HTTPException(status_code=404)
    return dict(row)


@app.post("/people", response_model=Person, status_code=201)
async def create_person(person: NewPerson, pool: Pool) -> dict[str, Any]:
    """Store one person."""
    row = await pool.fetchrow(
        INSERT,
        person.survived,
        person.passengerClass,
        person.name,
        person.sex,
        person.age,
        person.siblingsOrSpousesAboard,
        person.parentsOrChildrenAboard,
        person.fare,
    )
    return dict(row)
